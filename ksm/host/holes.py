# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of the computer that this runs on.
"""The parts of a file that are not holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator


def data_extents(fd: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """The parts (start, end) of a file that are not holes; all of it if the file system does not say. Moves the file's position."""
    while start < size:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: only a hole from here on
                yield start, size
            return
        yield start, min(end, size)
        start = end


def data_pages(fd: int, start: int, end: int, page: int) -> list[tuple[int, int]]:
    """The parts of [start, end), in whole pages, that are not holes, ascending. The file's position stays where it is."""
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return [(start, end)]
    parts: list[tuple[int, int]] = []
    try:
        for first, last in data_extents(own, end, start):
            first, last = first // page * page, -(-last // page) * page
            if parts and first <= parts[-1][1]:
                first = parts.pop()[0]
            parts.append((first, last))
    finally:
        os.close(own)
    return parts
