# SPDX-License-Identifier: GPL-2.0-only
# The types of plain.pyx.
from ksm.sources.pieces import Run

def private_areas(maps: bytes) -> list[Run] | None: ...

class Plain:
    maps: str
    found: list[tuple[int, int, int]] | None
    empty: list[Run]
    def forget(self) -> None: ...
    def look(self, maps: str, pagemap: int, kpageflags: int) -> list[tuple[int, int, int]] | None: ...
