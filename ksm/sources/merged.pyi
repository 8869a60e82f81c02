# SPDX-License-Identifier: GPL-2.0-only
# The types of merged.pyx.
from typing_extensions import Self

from ksm.sources.pieces import Run

class MergedFrames:
    def __new__(cls) -> Self: ...
    def add(self, pagemap: int, kpageflags: int, runs: list[Run]) -> tuple[int, list[Run]]: ...
