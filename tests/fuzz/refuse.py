# SPDX-License-Identifier: GPL-2.0-only
"""A system that refuses system calls: a seccomp filter, for this process and for good. Needs no privileges."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# By name: x86-64, arm64
NUMBERS = {"mmap": (9, 222), "mincore": (27, 232), "madvise": (28, 233), "pidfd_open": (434, 434), "process_madvise": (440, 440),
           "clone": (56, 220), "clone3": (435, 435)}  # fmt: skip
ARCH = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, EQUAL, SET, RETURN, AND = 0x20, 0x15, 0x45, 0x06, 0x54
PROT, FLAGS, LENGTH, ADVICE, PIDFD_ADVICE, FD = 32, 40, 24, 32, 40, 48  # where the arguments are in struct seccomp_data
PROT_NONE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 0, 0x10, 0x20, 0x4000

# What is refused: the system call, conditions (an argument's place, how it is compared, with what), the errno
Condition = tuple[int, str, int]
RULES: dict[str, list[tuple[str, list[Condition], int]]] = {
    "mincore": [("mincore", [], errno.ENOSYS)],
    "pidfd_open": [("pidfd_open", [], errno.ENOSYS)],
    "process_madvise": [("process_madvise", [], errno.EPERM)],
    "populate": [("madvise", [(ADVICE, "is", 23)], errno.EINVAL)],
    "madvise-huge": [("madvise", [(ADVICE, "is", 14)], errno.EINVAL), ("madvise", [(ADVICE, "is", 15)], errno.EINVAL)],
    "dontneed": [("madvise", [(ADVICE, "is", 4)], errno.EINVAL), ("process_madvise", [(PIDFD_ADVICE, "is", 4)], errno.EINVAL)],
    "image": [("mmap", [(FLAGS, "has", MAP_FIXED), (FLAGS, "has", MAP_NORESERVE), (FLAGS, "lacks", MAP_ANONYMOUS)], errno.ENODEV)],
    "reserve": [("mmap", [(PROT, "is", PROT_NONE), (FLAGS, "has", MAP_NORESERVE), (FLAGS, "lacks", MAP_FIXED)], errno.ENOMEM)],
    "clone": [("clone3", [], errno.EAGAIN), ("clone", [], errno.EAGAIN)],
}


def swap_length(size: int) -> int:
    """Bytes of the mapping behind a swap area of `size` bytes: see swapon() of ksm/mm/swapfile.pyx."""
    return (size // 4096 + 1) * (4096 + 8 + 4 + 1)


def supported() -> bool:
    return platform.machine() in ARCH


def program(calls: list[str]) -> bytes:
    """The filter: one rule after the other. A call that no rule refuses is allowed."""
    arch, column = ARCH[platform.machine()]
    code: list[tuple[int, int, int, int]] = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, ALLOW)]
    rules = [rule for call in calls for rule in RULES.get(call, [])]
    if "swapon" in calls:
        rules += [("mmap", [(LENGTH, "is", swap_length(size))], errno.ENOMEM) for size in (4096, 65536, 400 << 10, 4 << 20)]
    for name, conditions, error in rules:
        part: list[tuple[int, int, int, int]] = [(RETURN, 0, 0, ERRNO | error)]
        for where, how, value in reversed(conditions):
            skip = len(part)
            test = (SET, 0, skip, value) if how == "has" else (SET, skip, 0, value) if how == "lacks" else (EQUAL, 0, skip, value)
            part = [(LOAD, 0, 0, where), test, *part]
        code += [(LOAD, 0, 0, 0), (EQUAL, 0, len(part), NUMBERS[name][column]), *part]
    code.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in code)


def refuse(calls: list[str]) -> None:
    """Have the system refuse these calls from now on. OSError if the system has no such filters."""
    code = program(calls)
    buffer = ctypes.create_string_buffer(code)
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.c_void_p(ctypes.addressof(fprog)), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
