# SPDX-License-Identifier: GPL-2.0-only
"""A raw memory image: the pages of a machine, one after the other, as QEMU's pmemsave and Firecracker's snapshots write them."""

from __future__ import annotations

from ksm.constants import PAGE_SIZE
from ksm.host.holes import data_extents
from ksm.sources.base import Source, SourceError
from ksm.sources.extents import Extent, FileSource, without_holes
from ksm.sources.formats import what_is, what_is_named
from ksm.sources.input import Input


def open_image(input: Input) -> Source:
    """The source of a raw image. A hole of the file is an absent page, not a page of zeros."""
    name = input.name
    if what := what_is(input.peek()) or what_is_named(name):
        raise SourceError(f"{name}: not a memory image, but {what}")
    file = input.plain()
    if file is None:
        raise SourceError(f"{name}: not a regular file")
    fd, size = file
    if size % PAGE_SIZE:
        raise SourceError(f"{name}: not a memory image: {size} bytes are not whole pages of {PAGE_SIZE}; or it is truncated")
    return FileSource(name, "image", fd, without_holes([Extent(0, size, 0)], data_extents(fd, size)))
