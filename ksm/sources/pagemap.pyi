# SPDX-License-Identifier: GPL-2.0-only
# The types of pagemap.pyx.
from collections.abc import Callable

from typing_extensions import Buffer

def learn_ksm_flag(kpageflags: int) -> bool: ...
def anonymous_runs(pagemap: int, kpageflags: int, areas: list[tuple[int, int]], *, ask_ioctl: bool = True) -> list[tuple[int, int]]: ...
def has_scan(pagemap: int) -> bool: ...
def own_runs(
    pagemap: int, kpageflags: int, runs: list[tuple[int, int]], claimed: set[object], *, kpagecount: int = -1
) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int, int]: ...
def same_memory(first: int, second: int) -> bool: ...
def read_runs(
    pid: int,
    mem: int,
    runs: list[tuple[int, int]],
    sink: Callable[[list[tuple[int, int]], memoryview], None],
    buf: Buffer,
    *,
    by_file: bool,
) -> None: ...
