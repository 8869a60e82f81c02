# SPDX-License-Identifier: GPL-2.0-only
# The types of outcomes.pyx.
from array import array

from typing_extensions import Buffer

from ksm.machine import Machine

ABSENT: int
WITHIN: int
ACROSS: int
ZERO: int
SPLIT: int
LAST: int
FORKED: int
ALONE: int
HUGE: int
VOLATILE: int
WAITING: int
SMART_SCAN: int
FULL: int
OTHER_NODE: int
HELD: int
EQUAL_HELD: int
AGAIN: int
SWAPPED: int
FILE_PAGE: int
ONLY_READ: int
SHARED_MEMORY: int
SHARED_FILE: int
GUEST: int
HUGETLB: int
SPECIAL: int
DROPPABLE: int
NOT_MERGEABLE: int
APART: int
NR_REASONS: int

class Outcomes:
    def __init__(self, machine: Machine) -> None: ...
    def next_source(self) -> None: ...
    def add(self, words: array[int]) -> None: ...
    def reasons(self, words: array[int], decisions: Buffer) -> bytes: ...
    def like(self, words: array[int], pfn: int, most: int) -> list[tuple[int, bool]]: ...
