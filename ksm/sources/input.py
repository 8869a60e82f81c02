# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of the computer that this runs on.
"""A file that is read from front to back: as it lies there, unpacked, or from a pipe. Readers of formats do not know which."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

from ksm.sources.base import SourceError
from ksm.sources.formats import HEAD

CHUNK = 1 << 20


class Input(ABC):
    """Bytes in order.

    name        as errors show it
    position    how many bytes were read or passed over
    size        of all bytes, if it is known
    """

    def __init__(self, name: str, size: int | None = None) -> None:
        self.name = name
        self.size = size
        self.position = 0
        self._head = b""  # read ahead by peek()

    @abstractmethod
    def _next(self, most: int) -> bytes:
        """Up to `most` bytes, at least one; b"" at the end."""

    def peek(self, length: int = HEAD) -> bytes:
        """The next bytes, without passing over them; fewer only at the end. SourceError."""
        while len(self._head) < length:
            more = self._next(length - len(self._head))
            if not more:
                break
            self._head += more
        return self._head[:length]

    def some(self, most: int = CHUNK) -> bytes:
        """Up to `most` bytes, at least one; b"" at the end. SourceError."""
        if self._head:
            data, self._head = self._head[:most], self._head[most:]
        else:
            data = self._next(most)
        self.position += len(data)
        return data

    def back(self, data: bytes) -> None:
        """Give back the last bytes that were read: they come again."""
        self._head = data + self._head
        self.position -= len(data)

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
        return None


class FileInput(Input):
    """A regular file or a pipe. It takes over the descriptor."""

    def __init__(self, name: str, fd: int, size: int | None) -> None:
        super().__init__(name, size)
        self.fd = fd

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
        return None if self.size is None else FileInput(self.name, os.dup(self.fd), self.size)

    def plain(self) -> tuple[int, int] | None:
        return None if self.size is None else (self.fd, self.size)

    def close(self) -> None:
        os.close(self.fd)
