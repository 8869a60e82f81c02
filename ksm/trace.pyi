# SPDX-License-Identifier: GPL-2.0-only
# The types of trace.pyx.
from typing import NamedTuple, SupportsIndex

from typing_extensions import Self

from ksm.machine import Machine

EVENTS: tuple[str, ...]

class Event(NamedTuple):
    name: str
    seq: int
    rmap_entries: int
    pfn: int
    ksm_page: int
    rmap_item: int
    mm: int
    mm_id: int
    error: int

class Trace:
    def __new__(cls, machine: Machine) -> Self: ...
    def start(self, capacity: int = 65536) -> None: ...
    def stop(self) -> None: ...
    def read(self, limit: SupportsIndex | None = None) -> list[Event]: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def capacity(self) -> int: ...
    @property
    def lost(self) -> int: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
