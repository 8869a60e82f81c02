# SPDX-License-Identifier: GPL-2.0-only
"""A process that does nothing on its own, and whose address space is empty: system calls are made in it from outside. x86-64 only.

A workload may have all memory of a process merged (prctl, and what comes after exec), so a process must not have any of its own: no
stack, no heap, no interpreter. It has a few instructions in shared memory, which KSM does not look at. The tracer hands over what is to
be written through the same shared memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import struct
from contextlib import suppress
from pathlib import Path

from ksm.constants import MAP_FIXED_NOREPLACE
from ksm.oracle.workload import PAGE, OracleError

SYS_MMAP, SYS_MUNMAP, SYS_SIGACTION, SYS_FORK, SYS_EXECVE, SYS_EXIT_GROUP = 9, 11, 13, 57, 59, 231
SEIZE, INTERRUPT, GETREGS, SETREGS, CONT, GETEVENTMSG, GETSIGINFO, PEEKSIGINFO = 0x4206, 0x4207, 12, 13, 7, 0x4201, 0x4202, 0x4209
OPTIONS = 1 << 1 | 1 << 4 | 1 << 20  # TRACEFORK, TRACEEXEC, EXITKILL
EVENT_FORK, EVENT_EXEC, EVENT_STOP = 1, 4, 128
WALL = 0x40000000
MFD_EXEC = 0x10

# The program: each piece but the first ends with a breakpoint.
PIECES = {
    "wait": "b822000000 0f05 ebf7",             # pause(), for ever
    "syscall": "0f05 cc",
    "copy": "f3a4 cc",                          # rcx bytes from rsi to rdi
    "touch": "8a07 8807 4881c700100000 48ffc9 75f0 cc",  # rcx pages from rdi: read the first byte, write it back
    "read": "8a07 4881c700100000 48ffc9 75f2 cc",
}
HEADERS = 64 + 2 * 56
IMAGE, WINDOW = 0x400000, 0x10000000            # addresses: of the program as exec maps it, of the shared memory
DATA_PAGES = 128
SIGINFO = 128                                   # bytes of a siginfo_t
PATH_AT = 1024                                  # of strings and structures in the window's first page


class Registers(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulong) for name in (
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs",
        "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"))


def pieces() -> tuple[dict[str, int], bytes]:
    """Where each piece is in the program, and the program."""
    offsets, code = {}, b""
    for name, text in PIECES.items():
        offsets[name] = HEADERS + len(code)
        code += bytes.fromhex(text)
    return offsets, code


OFFSETS, CODE = pieces()


def executable() -> bytes:
    """The program as an ELF file of one page."""
    entry, size = IMAGE + OFFSETS["wait"], HEADERS + len(CODE)
    header = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, IMAGE, IMAGE, size, size, PAGE)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return (header + load + stack + CODE).ljust(PAGE, b"\0")


class Window:
    """The shared memory: the program, then pages for what is to be written. One for all processes of a run."""

    def __init__(self) -> None:
        if platform.machine() != "x86_64":
            raise OracleError("the kernel's side of a workload needs x86-64")
        self.size = (1 + DATA_PAGES) * PAGE
        self.fd = memfd("ksm_oracle")
        os.truncate(self.fd, self.size)
        os.pwrite(self.fd, executable(), 0)
        self.memory = mmap.mmap(self.fd, self.size)
        self.path = f"/proc/self/fd/{self.fd}"
        os.set_inheritable(self.fd, True)

    def put(self, offset: int, data: bytes) -> int:
        """Put data into the window: their address in a process."""
        self.memory[offset:offset + len(data)] = data
        return WINDOW + offset

    def close(self) -> None:
        self.memory.close()
        os.close(self.fd)


def memfd(name: str) -> int:
    try:
        return os.memfd_create(name, MFD_EXEC)
    except OSError:  # before Linux 6.3
        return os.memfd_create(name, 0)


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def ptrace(request: int, pid: int, data: int = 0, addr: int = 0) -> int:
    answer: int = libc.ptrace(request, pid, addr, data)
    if answer < 0:
        raise OracleError("ptrace() failed: " + os.strerror(ctypes.get_errno()))
    return answer


def address_of(siginfo: bytes) -> int:
    """The address that a signal is about."""
    address: int = struct.unpack_from("<Q", siginfo, 16)[0]
    return address


class Tracee:
    """An empty process. Only the thread that has made it may call its methods."""

    def __init__(self, window: Window, pid: int = 0) -> None:
        self.window = window
        self.regs = Registers()
        self.bus_error: int | None = None  # the address of the SIGBUS that has ended its last system call
        self.pid = pid or self.start()

    def start(self) -> int:
        # A process group of its own: Ctrl-C does not reach it.
        self.pid = os.posix_spawn(self.window.path, ["ksm-oracle"], {}, setpgroup=0)
        try:
            ptrace(SEIZE, self.pid, OPTIONS)
            ptrace(INTERRUPT, self.pid)
            while self.stop()[0] != EVENT_STOP:  # it may still be at the end of its execve(), which is an event, too
                ptrace(CONT, self.pid)
                ptrace(INTERRUPT, self.pid)
            ptrace(GETREGS, self.pid, ctypes.addressof(self.regs))
            self.empty()
            # The process ignores SIGCHLD, so that its children leave no zombies.
            ignore = struct.pack("<QQQQ", int(signal.SIG_IGN), 0, 0, 0)
            self.syscall(SYS_SIGACTION, signal.SIGCHLD, self.window.put(PATH_AT, ignore), 0, 8)
        except BaseException:
            self.kill()
            raise
        return self.pid

    def empty(self) -> None:
        """Map the window, and unmap everything else except what the kernel has put there (vdso, vvar)."""
        self.base = IMAGE
        prot, flags = mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_SHARED | MAP_FIXED_NOREPLACE
        self.syscall(SYS_MMAP, WINDOW, self.window.size, prot, flags, self.window.fd, 0)
        self.base = WINDOW
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            if start != WINDOW and not line.endswith(("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]")):
                self.syscall(SYS_MUNMAP, start, end - start)

    def stop(self) -> tuple[int, int]:
        """Wait until the process stops: the event, and the signal. OracleError if it ends."""
        try:
            _, status = os.waitpid(self.pid, WALL)
        except ChildProcessError:
            status = 0
        if not os.WIFSTOPPED(status):
            self.pid = 0
            raise OracleError("a workload process died")
        return status >> 16, os.WSTOPSIG(status)

    def wait(self, event: int = 0) -> None:
        """Wait until the process stops with this event, or at a breakpoint."""
        while (found := self.stop()) != (event, signal.SIGTRAP):
            if found[1] in (signal.SIGSEGV, signal.SIGBUS):
                raise OracleError(f"a workload process does not survive {signal.Signals(found[1]).name}")
            ptrace(CONT, self.pid)  # the workload does not get any other signal

    def resume(self, piece: str, **registers: int) -> None:
        """Run a piece of the program from its beginning."""
        self.regs.rip = self.base + OFFSETS[piece]
        self.regs.orig_rax = 0xFFFF_FFFF_FFFF_FFFF  # no system call is to be restarted
        for name, value in registers.items():
            setattr(self.regs, name, value)
        ptrace(SETREGS, self.pid, ctypes.addressof(self.regs))
        ptrace(CONT, self.pid)

    def run(self, piece: str, **registers: int) -> None:
        self.resume(piece, **registers)
        self.wait()

    def syscall(self, number: int, *args: int) -> int:
        """Make a system call in the process. OSError if it fails."""
        self.run("syscall", rax=number, **dict(zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), args, strict=False)))
        return self.result()

    def dangerous_syscall(self, number: int, *args: int) -> None:
        """Make a system call that may end with a SIGBUS. Then the process does no more. OSError."""
        self.resume("syscall", rax=number, **dict(zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), args, strict=False)))
        while (found := self.stop()) != (0, signal.SIGTRAP):
            if found == (0, signal.SIGBUS):
                siginfo = ctypes.create_string_buffer(SIGINFO)
                ptrace(GETSIGINFO, self.pid, ctypes.addressof(siginfo))
                self.bus_error = address_of(siginfo.raw)
                return
            ptrace(CONT, self.pid)
        self.result()

    def pending_bus_error(self) -> int | None:
        """The address of a SIGBUS that waits for the process."""
        siginfo = ctypes.create_string_buffer(SIGINFO)
        which = ctypes.create_string_buffer(16)
        number = 0
        while True:
            struct.pack_into("<QIi", which, 0, number, 0, 1)
            if not ptrace(PEEKSIGINFO, self.pid, ctypes.addressof(siginfo), ctypes.addressof(which)):
                return None
            if struct.unpack_from("<i", siginfo.raw)[0] == signal.SIGBUS:
                return address_of(siginfo.raw)
            number += 1

    def result(self) -> int:
        ptrace(GETREGS, self.pid, ctypes.addressof(self.regs))
        value = ctypes.c_long(self.regs.rax).value
        if -4096 < value < 0:
            raise OSError(-value, os.strerror(-value))
        return value

    def write(self, addr: int, data: bytes) -> None:
        """Write with the process's own instructions, as every program writes."""
        step = DATA_PAGES * PAGE
        for start in range(0, len(data), step):
            part = data[start:start + step]
            self.run("copy", rdi=addr + start, rsi=self.window.put(PAGE, part), rcx=len(part))

    def fork(self) -> Tracee:
        self.resume("syscall", rax=SYS_FORK)
        self.wait(EVENT_FORK)
        pid = ctypes.c_ulong()
        ptrace(GETEVENTMSG, self.pid, ctypes.addressof(pid))
        ptrace(CONT, self.pid)
        self.wait()
        child = Tracee(self.window, pid.value)
        child.base = self.base
        child.wait(EVENT_STOP)
        ptrace(CONT, child.pid)
        child.wait()  # the breakpoint behind its system call
        ptrace(GETREGS, child.pid, ctypes.addressof(child.regs))
        return child

    def execute(self) -> None:
        """execve(), with the same program."""
        path = self.window.put(PATH_AT, self.window.path.encode() + b"\0")
        argv = self.window.put(PATH_AT + 64, struct.pack("<QQ", path, 0))
        self.resume("syscall", rax=SYS_EXECVE, rdi=path, rsi=argv, rdx=argv + 8)
        self.wait(EVENT_EXEC)
        ptrace(GETREGS, self.pid, ctypes.addressof(self.regs))
        self.base = IMAGE
        # The registers can be set only when the process has left the system call: it goes on to the breakpoint behind "syscall".
        self.run("syscall", rip=IMAGE + OFFSETS["syscall"] + 2)
        self.empty()

    def exit(self) -> None:
        """Make the process exit, and wait for that. Its memory is gone before the exit can be seen."""
        with suppress(OracleError):
            self.run("syscall", rax=SYS_EXIT_GROUP, rdi=0)
        if self.pid:
            raise OracleError("a workload process does not exit")

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            while self.pid:
                with suppress(OracleError):
                    self.wait()
