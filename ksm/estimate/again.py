# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: there, a page's bytes are where the page is.
"""Sources read once more after a scan, for what a machine of fingerprints does not keep: what kind of contents its pages have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ksm.constants import PAGE_SIZE
from ksm.fingerprint.classes import classes_of
from ksm.fingerprint.frames import frames_of
from ksm.rows.format import RowsError
from ksm.sources.base import Source, SourceError
from ksm.sources.fingerprints import RowsSource
from ksm.sources.work import in_order

if TYPE_CHECKING:
    from ksm.sources.pieces import Piece, Run

WORDS = 4  # of 64 bits in a frame; the first one is the key


class Again:
    """What was found of contents, by their keys (see Shares.between()): the class of each, and the bytes of those in `keep`."""

    def __init__(self) -> None:
        self.classes: dict[int, int] = {}
        self.bytes: dict[int, bytes] = {}


def look_again(sources: Iterable[Source], wanted: Collection[int], *, keep: Collection[int] = (), key: bytes | None = None) -> Again:
    """Read the sources until all `wanted` contents were found again. Some are not: a process has changed, a pipe is empty.

    What is read is recognised by its fingerprint, so that it is what the scan has seen.
    """
    found = Again()
    wanted = set(wanted) | set(keep)
    for source in sources:
        for moment in source.moments_of()[-1:]:
            if len(found.classes) < len(wanted):
                read(moment, wanted, frozenset(keep), key, found)
    return found


def read(source: Source, wanted: set[int], keep: frozenset[int], key: bytes | None, found: Again) -> None:
    try:
        if isinstance(source, RowsSource):
            for keys, kinds in source.opened.file.classes(source.place):
                found.classes.update((each, kind) for each, kind in zip(keys, kinds, strict=True) if each in wanted)
            return
        for classes, pages in in_order(source.pieces(), lambda piece, buffer: of_piece(piece, buffer, wanted, keep, key), source.threads):
            found.classes.update(classes)
            found.bytes.update(pages)
            if len(found.classes) == len(wanted):
                return
    except (SourceError, RowsError, OSError):
        return  # of a process that has exited, a pipe: what was found is enough


def of_piece(
    piece: Piece, buffer: memoryview, wanted: set[int], keep: frozenset[int], key: bytes | None
) -> tuple[dict[int, int], dict[int, bytes]]:
    classes: dict[int, int] = {}
    pages: dict[int, bytes] = {}

    def sink(runs: list[Run], view: memoryview) -> None:
        keys = memoryview(frames_of(view, key=key)).cast("Q")[::WORDS].tolist()
        places = [place for place, each in enumerate(keys) if each in wanted and each not in classes]
        for place in places:
            data = bytes(view[place * PAGE_SIZE : (place + 1) * PAGE_SIZE])
            classes[keys[place]] = classes_of(data)[0]
            if keys[place] in keep:
                pages[keys[place]] = data

    piece.read(buffer, sink)
    return classes, pages
