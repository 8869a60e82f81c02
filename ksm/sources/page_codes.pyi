# SPDX-License-Identifier: GPL-2.0-only
# The types of page_codes.pyx.
from collections.abc import Iterator

from typing_extensions import Buffer

class PageCodes:
    def put(self, start: int, codes: Buffer) -> None: ...
    def fill(self, start: int, end: int, code: int) -> None: ...
    def get(self, addr: int) -> int: ...
    def codes(self, start: int, end: int) -> bytes: ...
    def counts(self, start: int, end: int) -> list[int]: ...
    def span(self, start: int, end: int) -> tuple[int, int] | None: ...
    def runs(self, start: int, end: int) -> Iterator[tuple[int, int, int]]: ...

def fill_kinds(
    pagemap: int,
    kpageflags: int,
    start: int,
    end: int,
    into: PageCodes,
    scanned: PageCodes | None,
    *,
    anonymous: int,
    missing: int,
    file: int,
    zero: int,
    swapped: int,
    ask_ioctl: bool = True,
) -> None: ...
