# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of the computer that this runs on.
"""A file that is read from front to back: as it lies there, unpacked, or from a pipe. Readers of formats do not know which."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from typing import Literal

from ksm.host.files import FileError, open_to_read
from ksm.sources.base import SourceError

CHUNK = 1 << 20
HEAD = 4096  # bytes that peek() gives if it is not told otherwise, by which files are told apart
AHEAD = 64 << 10  # bytes that are read at once, at least, where all have to be read
STANDARD_INPUT = "standard input"

Holes = Literal["absent", "zeros"]


class Input(ABC):
    """Bytes in order.

    name        as errors show it
    position    how many bytes were read or passed over
    size        of all bytes, if it is known
    holes       what the user says that holes of files are; None: what the format says

    Subclasses have _next(), which is asked for `ahead` bytes at least where that is cheaper than to be asked often.
    """

    ahead = 0

    def __init__(self, name: str, size: int | None = None, holes: Holes | None = None) -> None:
        self.name = name
        self.size = size
        self.holes = holes
        self.position = 0
        self._head: bytes | memoryview = b""  # read ahead, or put back

    @abstractmethod
    def _next(self, most: int) -> bytes:
        """Up to `most` bytes, at least one; b"" at the end."""

    def peek(self, length: int = HEAD) -> bytes:
        """The next bytes, without passing over them; fewer only at the end. SourceError."""
        while len(self._head) < length:
            more = self._next(length - len(self._head))
            if not more:
                break
            self._head = b"".join((self._head, more))
        return bytes(self._head[:length])

    def some(self, most: int = CHUNK) -> bytes:
        """Up to `most` bytes, at least one; b"" at the end. SourceError."""
        if not self._head and most < self.ahead:
            self._head = memoryview(self._next(self.ahead))
        if self._head:
            data = bytes(self._head[:most])
            self._head = self._head[len(data) :]
        else:
            data = self._next(most)
        self.position += len(data)
        return data

    def read(self, length: int) -> bytes:
        """`length` bytes. SourceError if there are fewer: callers look at lengths from a file before they trust them."""
        parts = []
        left = length
        while left:
            part = self.some(min(left, CHUNK))
            if not part:
                raise self.truncated()
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def block(self, length: int) -> bytes:
        """`length` bytes; fewer only at the end. SourceError."""
        data = self.some(length)
        if len(data) == length or not data:
            return data
        parts = [data]
        length -= len(data)
        while length and (part := self.some(length)):
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def back(self, data: bytes) -> None:
        """Put back the last bytes that were read."""
        self._head = b"".join((data, self._head))
        self.position -= len(data)

    def skip(self, length: int) -> None:
        """Pass over `length` bytes. SourceError if there are fewer."""
        while length:
            part = self.some(min(length, CHUNK))
            if not part:
                raise self.truncated()
            length -= len(part)

    def truncated(self) -> SourceError:
        return SourceError(f"{self.name}: truncated after {self.position:,} bytes")

    def again(self) -> Input | None:
        """The same bytes from the front once more, an input of its own; None where they come only once, as from a pipe."""
        return None

    def plain(self) -> tuple[int, int] | None:
        """Descriptor and size of the regular file whose bytes these are; None if they are unpacked, or come through a pipe."""
        return None

    def close(self) -> None:
        """Let go of files. Closing twice does no harm."""
        return None


class FileInput(Input):
    """A regular file of `size` bytes, or a pipe if there is no size. It takes over the descriptor."""

    def __init__(self, name: str, fd: int, size: int | None, holes: Holes | None = None) -> None:
        super().__init__(name, size, holes)
        self.fd = fd
        self.ahead = 0 if size is not None else AHEAD  # of a file, what is passed over need not be read

    def _next(self, most: int) -> bytes:
        try:
            return os.read(self.fd, most) if self.size is None else os.pread(self.fd, most, self.position + len(self._head))
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror or error}") from None

    def skip(self, length: int) -> None:
        if self.size is None:
            return super().skip(length)
        if length > self.size - self.position:
            raise self.truncated()
        self.position += length
        self._head = self._head[length:]

    def again(self) -> Input | None:
        return None if self.size is None else FileInput(self.name, os.dup(self.fd), self.size, self.holes)

    def plain(self) -> tuple[int, int] | None:
        return None if self.size is None else (self.fd, self.size)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def open_path(path: str, holes: Holes | None = None) -> FileInput:
    """The input of a file, of <(command), or of standard input as "-". SourceError."""
    if path == "-":
        return standard_input(holes)
    try:
        fd = open_to_read(path, pipes=True)
    except FileError as error:
        raise SourceError(str(error)) from None
    return of_descriptor(path, fd, holes)


def standard_input(holes: Holes | None) -> FileInput:
    try:
        fd = os.dup(0)
    except OSError as error:
        raise SourceError(f"{STANDARD_INPUT}: {error.strerror or error}") from None
    return of_descriptor(STANDARD_INPUT, fd, holes)


def of_descriptor(name: str, fd: int, holes: Holes | None) -> FileInput:
    """The input of a regular file, a pipe or a socket; the descriptor is its own. SourceError."""
    try:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            # Standard input may be a file that somebody else has begun to read.
            return FileInput(name, fd, found.st_size if not os.lseek(fd, 0, os.SEEK_CUR) else None, holes)
        if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode):
            os.set_blocking(fd, True)  # who has made it may have wanted it otherwise
            return FileInput(name, fd, None, holes)
        raise SourceError(f"{name}: neither a file nor a pipe")
    except OSError as error:
        os.close(fd)
        raise SourceError(f"{name}: {error.strerror or error}") from None
    except BaseException:
        os.close(fd)
        raise
