# SPDX-License-Identifier: GPL-2.0-only
"""Functions by which a process has the system refuse it calls; run by the processes that test_arena.py starts."""

import ctypes
import platform
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
# (x86-64, aarch64)
SYSCALLS = {"madvise": (28, 233), "mincore": (27, 232), "pidfd_open": (434, 434), "process_madvise": (440, 440)}
MADV_DONTNEED, MADV_POPULATE_WRITE = 4, 23
MCL_FUTURE = 2
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06      # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER, THIRD = 0, 32                       # in struct seccomp_data: nr, and the low half of args[2]


def must(result: int) -> int:
    if result:
        sys.exit(77)        # the system has no such filters: the test is skipped
    return result


def deny(name: str, error: int = 1, advice: int | None = None) -> None:
    """The system call of this name fails with this errno from now on; of the madvise family, only for this advice."""
    number = SYSCALLS[name][{"x86_64": 0, "aarch64": 1}[platform.machine()]]
    steps = [(LOAD, 0, 0, NUMBER), (EQUAL, 0, 1 if advice is None else 3, number)]
    if advice is not None:
        steps += [(LOAD, 0, 0, THIRD), (EQUAL, 0, 1, advice)]
    steps += [(RETURN, 0, 0, ERRNO | error), (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    must(libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0))


def lock_all() -> None:
    """Memory that is mapped from now on stays where it is."""
    must(libc.mlockall(MCL_FUTURE))


def lock(address: int, length: int) -> None:
    must(libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(length)))
