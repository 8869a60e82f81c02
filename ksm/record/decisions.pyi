# SPDX-License-Identifier: GPL-2.0-only
# The types of decisions.pyx.
from typing import NamedTuple

from typing_extensions import Self

from ksm.machine import Machine

NOT_VISITED: int
FIRST_VISIT: int
CHANGED: int
SKIPPED: int
TO_ZERO_PAGE: int
MERGED: int
NO_EQUAL: int
EQUAL_FULL: int
SAME_FRAME: int
MET_GONE: int
OTHER_NODE: int
HELD: int
EQUAL_HELD: int
BUSY: int
DIFFERS: int
FAILED: int
NR_DECISIONS: int

class Visit(NamedTuple):
    number: int
    decision: int
    by_other: bool
    other: tuple[int, int] | None

class Decisions:
    def __new__(cls, machine: Machine) -> Self: ...
    @property
    def machine(self) -> Machine: ...
    def follow(self, mm_id: int, address: int) -> None: ...
    def visits(self) -> list[Visit]: ...
    def of(self, mm_id: int, start: int, nr_pages: int) -> bytes: ...
    def stop(self) -> None: ...
