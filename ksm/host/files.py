# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of the computer that this runs on.
"""Files that a user names. Opening one never waits, reading has a limit, and write_whole() replaces a file or leaves it as it is."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from ksm.host.text import limit_said

CHUNK = 1 << 20
PREFIX = 100  # bytes of a file's name in that of a new one, which must not become too long


FILES = 4  # that a source may have open at the same time: a reader that goes back has its file twice
OTHERS = 64  # that are open besides


class FileError(Exception):
    """A file cannot be used. The text is one line: which file, and what is wrong with it."""


def open_to_read(path: str, *, pipes: bool = False) -> int:
    """Open a regular file; with `pipes`, also the pipe that a shell has made for <(command). Returns the descriptor. FileError.

    A FIFO in a folder, a device and a socket are refused without being opened: opening could wait for ever, or have effects.
    """
    try:
        check_kind(path, os.stat(path).st_mode, pipes and os.path.basename(os.path.realpath(path)).startswith("pipe:["))
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: {why(error)}") from None
    try:
        mode = os.fstat(fd).st_mode  # the path may lead to another file by now
        check_kind(path, mode, pipes)
        if stat.S_ISFIFO(mode):
            # Only a pipe without a name in a folder: its writer is there already.
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                raise FileError(f"{path}: not a regular file")
            os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def allow_files(sources: int) -> None:
    """Let this process open files for so many sources: raise its soft limit of open files, up to the hard one at most."""
    wanted = sources * FILES + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def why(error: OSError | ValueError) -> str:
    """What an error of opening a file means for the user."""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return f"too many open files: at most {resource.getrlimit(resource.RLIMIT_NOFILE)[1]:,} are allowed (ulimit -Hn)"
    return getattr(error, "strerror", None) or str(error)


def check_kind(path: str, mode: int, pipes: bool) -> None:
    if stat.S_ISDIR(mode):
        raise FileError(f"{path}: is a directory")
    if not stat.S_ISREG(mode) and not (pipes and stat.S_ISFIFO(mode)):
        raise FileError(f"{path}: not a regular file")


def read_file(path: str, limit: int) -> bytes:
    """The bytes of a regular file or of <(command): `limit` at most. FileError."""
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
    """Create or empty a file: its descriptor. A FIFO that nobody reads is an error, and not waited for. OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    os.set_blocking(fd, True)
    return fd


@contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """A new file, which takes the place of `path` at the end, or is removed on any error and leaves `path` as it was. OSError.

    An existing file keeps its mode, and a new one is its owner's alone. What is there and is not a regular file is refused before anything
    is written.
    """
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = 0
    if mode and not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR)) if stat.S_ISDIR(mode) else OSError(errno.EINVAL, "not a regular file")
    # The name is known before there is a file, so that Ctrl-C at any moment leaves nothing.
    new = os.path.join(folder, f".{os.fsdecode(os.fsencode(name)[:PREFIX])}.{os.urandom(8).hex()}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            if mode:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except FileExistsError:  # somebody else's, against all odds
        raise
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(new)
        raise
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def write_whole(path: str, text: str) -> None:
    """Write the text to the file, or leave the file as it was and raise OSError. An existing file keeps its mode."""
    with replacing(path) as file:
        file.write(text.encode())
