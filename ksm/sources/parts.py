# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: files, and what comes through a pipe.
"""Parts of a file that its reader wants before it reads the rest: headers, tables, notes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

from ksm.sources.base import SourceError
from ksm.sources.input import HEAD, Input

MOST_TURNS = 16  # times that an input is read again from its front


class Parts(ABC):
    """Parts of a file, in any order. `size` is that of the file, if it is known."""

    def __init__(self, name: str, size: int | None) -> None:
        self.name = name
        self.size = size

    @abstractmethod
    def part(self, offset: int, length: int, *, fewer: bool = False) -> bytes:
        """`length` bytes; with `fewer`, what there is of them. SourceError."""

    def whole(self, wanted: int) -> None:
        """SourceError if the file is known to be shorter than it says."""
        if self.size is not None and wanted > self.size:
            raise SourceError(f"{self.name}: truncated: the file has {self.size:,} bytes, and should have {wanted:,} at least")


class FileParts(Parts):
    """Parts of a regular file."""

    def __init__(self, name: str, fd: int, size: int) -> None:
        super().__init__(name, size)
        self.fd = fd

    def part(self, offset: int, length: int, *, fewer: bool = False) -> bytes:
        if not fewer:
            self.whole(offset + length)
        data = bytearray()
        while len(data) < length:
            more = os.pread(self.fd, length - len(data), offset + len(data))
            if not more:
                if fewer:
                    break
                raise SourceError(f"{self.name}: was truncated meanwhile")
            data += more
        return bytes(data)


class InputParts(Parts):
    """Parts of an input. They are best asked for from front to back: each step back reads the input again, if that is possible.

    After that `input` is another one, and the first one is closed.
    """

    def __init__(self, input: Input) -> None:
        super().__init__(input.name, input.size)
        self.input = input
        self.turns = 0

    def part(self, offset: int, length: int, *, fewer: bool = False) -> bytes:
        self.go(offset)
        # What is short stays there, so that the next part may overlap with it.
        data = self.input.peek(length) if length <= HEAD else self.input.block(length)
        if len(data) < length and not fewer:
            self.input.skip(length)
        return data

    def go(self, offset: int) -> None:
        """Make `input` stand at this offset."""
        if offset < self.input.position:
            self.input = self.again()
        self.input.skip(offset - self.input.position)

    def again(self) -> Input:
        self.turns += 1
        if self.turns > MOST_TURNS:
            raise SourceError(f"{self.name}: damaged: its parts overlap")
        input = self.input.again()
        if input is None:
            raise SourceError(f"{self.name}: has to be read more than once, and comes through a pipe: write it to a file")
        self.input.close()
        return input
