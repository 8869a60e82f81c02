# SPDX-License-Identifier: GPL-2.0-only
"""The dice for actions: which process, which place, how many bytes, and now and then an odd argument."""

from __future__ import annotations

import random
from typing import Any

import ksm
from fuzz import odd as odds
from fuzz.shadow import PAGE
from fuzz.world import BASE, GONE, HUGE, ROOM, WINDOW

RW = ksm.PROT_READ | ksm.PROT_WRITE
FIXED = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED
CONTENTS = 12
TOP = (1 << 64) - PAGE  # the last page of all addresses
EDGES = [
    *odds.NUMBERS[:12],
    BASE + 1,
    BASE - 1,
    (1 << 47) - PAGE,
    (1 << 47) - 2 * PAGE,
    1 << 47,
    TOP,
    HUGE,
    65536,
    4096,
    ROOM + 1,
    BASE + 24 * PAGE,
]
NESTED = [["scan", 50], ["look"], ["swap"], ["spawn"], ["fork"], ["check"], ["drain"], ["brk"]]


class Roll(random.Random):
    """The dice of one list of actions, which are of these kinds."""

    def begin(self, kinds: list[str]) -> Roll:
        self.kinds = set(kinds)
        self.hot = [self.randrange(WINDOW) for _ in range(self.choice([1, 2, 3, 6]))]
        # How often an action goes to the place of the action before it: faults need a page with a history.
        self.sticky = self.choice([0.2, 0.6, 0.9])
        self.last: list[Any] | None = None
        self.one = 0
        self.huge = "huge" in self.kinds and self.random() < 0.6
        return self

    def chance(self, share: float) -> bool:
        return self.random() < share

    def who(self) -> int:
        if not self.chance(self.sticky):
            self.one = self.choice([0, 0, 0, 1, 1, 2, 3, 5])
        return GONE if self.chance(0.02) else self.one

    def place(self) -> list[Any]:
        if self.last is None or not self.chance(self.sticky):
            self.last = self.new_place()
        return self.last

    def new_place(self) -> list[Any]:
        share = self.random()
        if share < 0.5:
            return ["near", self.choice(self.hot)]
        if share < 0.7:
            return [self.choice(["near", "near", "near", "slot"]), self.randrange(WINDOW)]
        if share < 0.93 or not self.huge:
            return ["map", self.randrange(16), self.choice([0, 0, 1, 2, 5, 511, 512, self.randrange(1024)])]
        return ["room", self.randrange(4)]

    def slot(self) -> list[Any]:
        return ["slot", self.randrange(WINDOW)]

    def anywhere(self) -> list[Any]:
        """A place: mostly one with memory."""
        return self.place() if self.chance(0.96) else ["at", self.choice(EDGES) % (1 << 64)]

    def pages(self) -> int:
        if self.huge and self.chance(0.2):
            return self.choice([511, 512, 513, 1024, 1025])
        return self.choice([1, 1, 1, 2, 2, 3, 4, 5, 8, 12, 31, 40])

    def any_length(self) -> int:
        return self.choice([number for number in odds.NUMBERS if 0 <= number < 1 << 64])

    def length(self, most: int = 1 << 64) -> int:
        """A length for a system call: whole pages, nearly whole pages, or anything."""
        share = self.random()
        if share < 0.9:
            return self.pages() * PAGE
        if share < 0.96:
            return self.pages() * PAGE + self.choice([-1, 1, 100, -4095])
        return min(most, self.any_length())

    def extent(self) -> tuple[int, int]:
        """An offset in a page and a number of bytes: mostly whole pages."""
        share = self.random()
        if share < 0.5:
            return 0, PAGE
        if share < 0.75:
            return 0, self.pages() % 64 * PAGE
        return self.choice([0, 1, 8, 2048, 4095]), self.choice([0, 1, 2, 8, 100, 4095, 4096, 4097, 9000])

    def content(self) -> int:
        return self.choice([0, 1, 1, 2, 3, 4, 5, 6, self.randrange(CONTENTS), self.randrange(256)])

    def prot(self) -> int:
        return self.choice([RW] * 6 + [0, 1, 1, 2, 4, 5, 7, 8])

    def flags(self) -> int:
        kind = ksm.MAP_SHARED if "shared" in self.kinds and self.chance(0.3) else ksm.MAP_PRIVATE
        if self.chance(0.04):
            return self.choice([0, kind, 3 | ksm.MAP_ANONYMOUS, -1, 1 << 30, kind | ksm.MAP_ANONYMOUS | 0x100])
        return kind | ksm.MAP_ANONYMOUS | self.choice([0, ksm.MAP_FIXED, ksm.MAP_FIXED, ksm.MAP_FIXED_NOREPLACE, ksm.MAP_NORESERVE, 0x8000])

    def odd(self, positions: int) -> Any:
        """Mostly None; seldom the number of an argument, and the odd argument that takes its place."""
        if "odd" not in self.kinds or not self.chance(0.03):
            return None
        share = self.random()
        if share < 0.25:
            spec: list[Any] = ["value", self.choice(odds.NUMBERS)]
        elif share < 0.45:
            spec = ["index"]
        elif share < 0.65:
            spec = ["calls", self.choice(NESTED)]
        else:
            spec = odds.stranger(self)
        return [self.randrange(positions), spec]
