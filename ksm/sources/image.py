# SPDX-License-Identifier: GPL-2.0-only
"""A raw memory image: the pages of a machine, one after the other, as QEMU's pmemsave and Firecracker's snapshots write them."""

from __future__ import annotations

from collections.abc import Iterator

from ksm.constants import PAGE_SIZE
from ksm.host.holes import data_extents
from ksm.sources.base import Source, SourceError
from ksm.sources.extents import Extent, FileSource
from ksm.sources.formats import what_is, what_is_named
from ksm.sources.input import Input
from ksm.sources.pieces import Loaded, Piece
from ksm.sources.stream import InputSource

STEP = 1 << 20  # bytes of a piece


def open_image(input: Input) -> Source:
    """The source of a raw image: of the file itself, or of what comes unpacked or through a pipe.

    A hole of the file is pages of zeros, as for everybody who reads it: a sparse copy is the same image.
    """
    name = input.name
    if what := what_is(input.peek()) or what_is_named(name):
        raise SourceError(f"{name}: not a memory image, but {what}")
    file = input.plain()
    if file is None:
        return ImageStream(input, "image")
    fd, size = file
    if size % PAGE_SIZE:
        raise no_image(name, size)
    return FileSource(name, "image", fd, [Extent(0, size, 0)], data_extents(fd, size), input.holes or "zeros")


def no_image(name: str, size: int) -> SourceError:
    return SourceError(f"{name}: not a memory image: {size} bytes are not whole pages of {PAGE_SIZE}; or it is truncated")


class ImageStream(InputSource):
    """A raw image that is read once, from front to back. Holes are zeros there."""

    ordered = True

    def read(self, input: Input) -> Iterator[Piece]:
        while data := input.block(STEP):
            if len(data) % PAGE_SIZE:
                raise no_image(self.name, input.position)
            yield Loaded(input.position - len(data), data)
