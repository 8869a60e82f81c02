# SPDX-License-Identifier: GPL-2.0-only
# The types of plain.pyx.
from ksm.sources.pieces import Run

def plain_mappings(
    maps: bytes, pagemap: int, kpageflags: int, known: list[tuple[int, int, int]]
) -> list[tuple[int, int, int]] | None: ...
def private_areas(maps: bytes) -> list[Run] | None: ...
