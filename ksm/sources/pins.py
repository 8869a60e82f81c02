# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what mm/gup.c has pinned, as far as fs/proc tells.
"""Pages that somebody holds besides the process, as far as that is known: write_protect_page() of mm/ksm.c refuses them."""

from __future__ import annotations

import fcntl
import os
import re
import termios
from array import array
from contextlib import suppress

from ksm.constants import PAGE_SIZE
from ksm.sources.pieces import Run

SYS_PIDFD_GETFD = 438  # on every architecture
RING = "anon_inode:[io_uring]"
BUFFER = re.compile(r" *\d+: 0x([0-9a-f]{1,16})/(\d{1,12})")


def registered_buffers(folder: int) -> list[Run]:
    """The pages that a process has registered with io_uring, from its folder in /proc; sorted, and without overlaps."""
    found: set[Run] = set()
    for name, link in descriptors(folder):
        if link == RING:
            with suppress(FileNotFoundError, PermissionError):  # closed meanwhile
                file = os.open(f"fdinfo/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
                found.update(buffers_of(text_of(file)))
    result: list[Run] = []
    for start, end in sorted(found):
        if result and start <= result[-1][1]:
            start, end = result[-1][0], max(end, result.pop()[1])
        result.append((start, end))
    return result


def descriptors(folder: int) -> list[tuple[str, str]]:
    """The open files of a process, from its folder in /proc: the number of each, and what it is. OSError."""
    found: list[tuple[str, str]] = []
    numbers = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        for name in os.listdir(numbers):
            with suppress(FileNotFoundError, PermissionError):  # closed meanwhile
                found.append((name, os.readlink(name, dir_fd=numbers)))
    finally:
        os.close(numbers)
    return found


def text_of(fd: int) -> str:
    with os.fdopen(fd, errors="replace") as file:
        return file.read()


def pages_in_pipes(pid: int, folder: int) -> dict[str, int]:
    """The pipes of a process that are not empty, and how many pages lie in each at most: vmsplice() puts the process's own pages there.

    Whole pages are meant: parts of pages could be more. The pipes are asked by descriptors that pidfd_getfd() copies for a moment; what may
    not be copied is left out.
    """
    found: dict[str, int] = {}
    pipes = {link: int(name) for name, link in descriptors(folder) if link.startswith("pipe:[")}
    if not pipes:
        return found
    with suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            for link, number in pipes.items():
                with suppress(OSError):
                    if pages := pages_in(copied(process, number)):
                        found[link] = pages
        finally:
            os.close(process)
    return found


def copied(process: int, number: int) -> int:
    """A copy of a descriptor of another process. OSError."""
    import ctypes  # few scans come across a pipe

    libc = ctypes.CDLL(None, use_errno=True)
    copy: int = libc.syscall(SYS_PIDFD_GETFD, process, number, 0)
    if copy < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return copy


def pages_in(pipe: int) -> int:
    """How many whole pages the bytes in a pipe are, rounded up; it is closed. OSError."""
    try:
        size = array("i", [0])
        fcntl.ioctl(pipe, termios.FIONREAD, size)
        return -(-size[0] // PAGE_SIZE)
    finally:
        os.close(pipe)


def buffers_of(fdinfo: str) -> list[Run]:
    """The pages of the buffers in a ring's /proc/PID/fdinfo/FD."""
    result: list[Run] = []
    for line in fdinfo.partition("\nUserBufs:")[2].splitlines()[1:]:
        buffer = BUFFER.fullmatch(line)
        if buffer is None:
            break
        start, length = int(buffer[1], 16), int(buffer[2])
        if length:
            result.append((start // PAGE_SIZE * PAGE_SIZE, -(-(start + length) // PAGE_SIZE) * PAGE_SIZE))
    return result
