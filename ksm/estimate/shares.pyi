# SPDX-License-Identifier: GPL-2.0-only
# The types of shares.pyx.
from array import array
from typing import NamedTuple

from typing_extensions import Buffer, Self

from ksm.machine import Machine

UNKNOWN: int

class Shared(NamedTuple):
    pages: int
    frames: int
    sources: int
    source: int
    address: int
    frame: int
    key: int

class Shares:
    def __new__(cls, machine: Machine) -> Self: ...
    def __len__(self) -> int: ...
    def next_source(self) -> None: ...
    def add(self, start: int, words: Buffer) -> None: ...
    def done(self) -> None: ...
    def most(self, number: int) -> list[Shared]: ...
    def matrix(self, groups: list[int], nr: int) -> list[list[int]]: ...
    def between(self, groups: list[int], nr: int) -> tuple[array[int], array[int], array[int], array[int]]: ...
    def by_class(self, groups: list[int], nr: int, classes: Buffer) -> dict[int, tuple[int, int, list[int], int]]: ...
