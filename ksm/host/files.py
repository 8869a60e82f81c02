# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of the computer that this runs on.
"""Files that a user names: read up to a limit, and never waited for; written without waiting, or whole."""

from __future__ import annotations

import os
import stat

from ksm.host.text import limit_said

CHUNK = 1 << 20


class FileError(Exception):
    """A file cannot be used. The text is one line: which file, and what is wrong with it."""


def open_to_read(path: str, *, pipes: bool = False) -> int:
    """A descriptor of a regular file; with pipes, also of what the shell has opened for <(command). FileError.

    A FIFO in a folder, a device and a socket are refused without being opened: that could wait for ever, or have effects.
    """
    try:
        check_kind(path, os.stat(path).st_mode, pipes)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        mode = os.fstat(fd).st_mode  # it may be another file by now
        check_kind(path, mode, pipes)
        if stat.S_ISFIFO(mode):
            # A pipe that has no name in a folder. Whoever writes to it is there already.
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                raise FileError(f"{path}: not a regular file")
            os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_kind(path: str, mode: int, pipes: bool) -> None:
    if stat.S_ISDIR(mode):
        raise FileError(f"{path}: is a directory")
    if not stat.S_ISREG(mode) and not (pipes and stat.S_ISFIFO(mode)):
        raise FileError(f"{path}: not a regular file")


def read_file(path: str, limit: int) -> bytes:
    """What is in a regular file, or comes out of <(command): at most so many bytes. FileError."""
    fd = open_to_read(path, pipes=True)
    try:
        if os.fstat(fd).st_size > limit:
            raise too_large(path, limit)
        parts = []
        left = limit + 1
        while left and (part := os.read(fd, min(left, CHUNK))):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    finally:
        os.close(fd)
    if not left:
        raise too_large(path, limit)
    return b"".join(parts)


def too_large(path: str, limit: int) -> FileError:
    return FileError(f"{path}: larger than {limit_said(limit)}")


def open_to_write(path: str | os.PathLike[str]) -> int:
    """A descriptor of a new or emptied file. A FIFO that nobody reads is an error, and not waited for. OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    os.set_blocking(fd, True)
    return fd


def write_whole(path: str, text: str) -> None:
    """Put a file with this text there, or leave everything as it is: OSError. A file that was there keeps its mode."""
    import tempfile  # which `ksm scan` does not need

    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    fd, new = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            if os.path.exists(path):
                os.fchmod(fd, stat.S_IMODE(os.stat(path).st_mode))
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
