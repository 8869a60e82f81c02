# SPDX-License-Identifier: GPL-2.0-only
"""Sources whose pages a test gives, and fingerprint files of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ksm.machine import Machine
from ksm.sources import Source
from ksm.sources.pieces import Loaded, Piece, Run
from ksm.sources.save import Saved, save_file

PAGE = 4096


def page(number: int) -> bytes:
    """A page with this number in every word."""
    return number.to_bytes(8, "little") * (PAGE // 8)


class Given(Source):
    """Pieces of memory as they are given: (address, bytes). Only for writing into a file."""

    kind = "image"

    def __init__(self, name: str, given: Sequence[tuple[int, bytes]], *, ordered: bool = False) -> None:
        super().__init__(name)
        self.given = given
        self.ordered = ordered

    def attach(self, machine: Machine) -> None:
        raise NotImplementedError

    def ranges(self) -> list[Run]:
        raise NotImplementedError

    def pieces(self) -> Iterator[Piece]:
        for address, data in self.given:
            yield Loaded(address, data)


def write_rows(path: Any, sources: dict[str, dict[int, int]], **options: Any) -> Saved:
    """A fingerprint file of sources with numbered pages at addresses."""
    given: list[Source] = [
        Given(name, [(address, page(number)) for address, number in pages.items()]) for name, pages in sources.items()
    ]
    return save_file(str(path), given, progress=lambda what, done, total: None, **options)
