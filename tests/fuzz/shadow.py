# SPDX-License-Identifier: GPL-2.0-only
"""A shadow is what the memory of a process has to be: its mappings, and the bytes of every page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ksm

PAGE = ksm.PAGE_SIZE
MASK = PAGE - 1
ZEROS = bytes(PAGE)
HEAP = 0x555555556000
TASK_SIZE = (1 << 47) - PAGE
STACK = 33 * PAGE
LOWEST = 65536  # mmap_min_addr

Data = "bytes | None"  # of a page; None if it is not known what the page has to hold


def up(length: int) -> int:
    return (length + MASK) & ~MASK


class Shared:
    """The object behind a shared mapping."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.data: dict[int, Any] = {}


class Area:
    """Pages with the same attributes, one after the other. It may be a part of a mapping, or lie across several."""

    __slots__ = ("dontfork", "end", "index", "prot", "shared", "start", "wipe")

    def __init__(self, start: int, end: int, prot: int, shared: Shared | None = None, index: int = 0, dontfork: bool = False,
                 wipe: bool = False) -> None:  # fmt: skip
        self.start, self.end, self.prot, self.shared, self.index, self.dontfork, self.wipe = start, end, prot, shared, index, dontfork, wipe

    def part(self, start: int, end: int) -> Area:
        return Area(start, end, self.prot, self.shared, self.index + (start - self.start) // PAGE, self.dontfork, self.wipe)

    @property
    def pages(self) -> int:
        return (self.end - self.start) // PAGE


class Space:
    """An address space."""

    def __init__(self) -> None:
        self.areas: list[Area] = []  # ascending
        self.data: dict[int, Any] = {}  # private pages that are not zeros, by address
        self.brk = HEAP
        self.merge_any = False

    # Mappings

    def find(self, addr: int) -> Area | None:
        return next((area for area in self.areas if area.start <= addr < area.end), None)

    def over(self, start: int, end: int) -> list[Area]:
        return [area for area in self.areas if area.start < end and area.end > start]

    def covered(self, start: int, end: int) -> int:
        """The end of the addresses from start on that have no hole."""
        for area in self.areas:
            if area.start <= start < area.end:
                start = area.end
        return min(start, end)

    def cut(self, start: int, end: int) -> list[Area]:
        """Split the areas at both ends of the range: the areas inside."""
        areas = []
        for area in self.areas:
            marks = [area.start, *(mark for mark in (start, end) if area.start < mark < area.end), area.end]
            areas += [area] if len(marks) == 2 else [area.part(a, b) for a, b in itertools.pairwise(marks)]
        self.areas = areas
        return self.over(start, end)

    def known(self, start: int, end: int) -> list[int]:
        """The addresses of private pages in the range that are not zeros."""
        if (end - start) // PAGE < len(self.data):
            return [addr for addr in range(start, end, PAGE) if addr in self.data]
        return sorted(addr for addr in self.data if start <= addr < end)

    def zero(self, start: int, end: int) -> None:
        """Make private pages of the range zeros; shared ones stay."""
        for addr in self.known(start, end):
            del self.data[addr]

    def unmap(self, start: int, end: int) -> None:
        if start >= end:
            return
        gone = {id(area) for area in self.cut(start, end)}
        if gone:
            self.areas = [area for area in self.areas if id(area) not in gone]
            self.zero(start, end)

    def map(self, area: Area) -> None:
        """Put an area in place of what is there."""
        self.unmap(area.start, area.end)
        self.areas.append(area)
        self.areas.sort(key=lambda each: each.start)

    def move(self, old: int, old_length: int, new: int, new_length: int) -> None:
        """mremap(): [old, old + old_length) goes to new, and grows or is a part there. Without a length a shared area is doubled."""
        first = self.find(old)
        assert first is not None
        data = [(addr - old, self.data[addr]) for addr in self.known(old, old + min(old_length, new_length))]
        moved = first.part(old, old + new_length)
        self.unmap(old, old + old_length)
        moved.start, moved.end = new, new + new_length
        self.map(moved)
        self.data.update({new + offset: page for offset, page in data})

    def fork(self) -> Space:
        child = Space()
        child.brk, child.merge_any = self.brk, self.merge_any
        child.areas = [area.part(area.start, area.end) for area in self.areas if not area.dontfork]
        child.data = dict(self.data)
        for area in self.areas:
            if area.dontfork or area.wipe:
                child.zero(area.start, area.end)
        return child

    def lines(self) -> list[tuple[int, int, int, bool]]:
        """The lines of /proc/PID/maps: (start, end, prot, shared). Neighbours that agree are one line."""
        return joined((area.start, area.end, area.prot, area.shared is not None) for area in self.areas)

    # Pages

    def page(self, addr: int) -> Any:
        """The bytes of a mapped page; None if they are not known."""
        area = self.find(addr)
        assert area is not None
        if area.shared is None:
            return self.data.get(addr, ZEROS)
        return area.shared.data.get(area.index + (addr - area.start) // PAGE, ZEROS)

    def inside(self, area: Area, start: int, end: int) -> list[Any]:
        """The pages of a range of this area."""
        if area.shared is None:
            return [self.data.get(addr, ZEROS) for addr in range(start, end, PAGE)]
        first = area.index + (start - area.start) // PAGE
        return [area.shared.data.get(index, ZEROS) for index in range(first, first + (end - start) // PAGE)]

    def store(self, addr: int, page: Any) -> None:
        area = self.find(addr)
        assert area is not None
        data, key = (self.data, addr) if area.shared is None else (area.shared.data, area.index + (addr - area.start) // PAGE)
        if page == ZEROS:
            data.pop(key, None)
        else:
            data[key] = page

    def write(self, addr: int, data: Any) -> None:
        """Write bytes at any mapped addresses; None for bytes that are not known."""
        at, end, size = addr, addr + len(data), 0
        while at < end:
            page, offset = at & ~MASK, at & MASK
            size = min(PAGE - offset, end - at)
            old = self.page(page)
            if size == PAGE:
                self.store(page, bytes(data[at - addr : at - addr + PAGE]))
            elif old is not None:
                self.store(page, old[:offset] + bytes(data[at - addr : at - addr + size]) + old[offset + size :])
            at += size

    def forget(self, start: int, end: int) -> None:
        """The mapped pages of the range are not known from now on."""
        for area in self.over(start, end):
            for addr in range(max(start & ~MASK, area.start), min(end, area.end), PAGE):
                self.store(addr, None)

    def allows(self, addr: int, write: bool, force: bool = False) -> bool:
        """Whether the page may be read or written."""
        area = self.find(addr)
        if area is None:
            return False
        if area.shared is not None and area.index + (addr - area.start) // PAGE >= area.shared.pages:
            return False
        if write:
            return bool(area.prot & ksm.PROT_WRITE) or (force and area.shared is None)
        return force or area.prot != 0

    def reach(self, addr: int, end: int, write: bool, force: bool = False) -> int:
        """How far an access gets from addr on: end, or the first byte that is not allowed."""
        while addr < end and self.allows(addr & ~MASK, write, force):
            addr = (addr & ~MASK) + PAGE
        return min(addr, end)

    def runs(self, most: int) -> Iterator[tuple[Area, int, int]]:
        """Ranges to compare, each with its area. Of areas larger than `most` only pages that were written."""
        for area in self.areas:
            end = area.end if area.shared is None else min(area.end, area.start + max(0, area.shared.pages - area.index) * PAGE)
            if (end - area.start) // PAGE <= most:
                if area.start < end:
                    yield area, area.start, end
            else:
                known = (
                    self.known(area.start, end)
                    if area.shared is None
                    else [
                        area.start + (index - area.index) * PAGE
                        for index in sorted(area.shared.data)
                        if 0 <= index - area.index < area.pages
                    ]
                )
                for addr in known:
                    yield area, addr, addr + PAGE


def joined(lines: Any) -> list[tuple[int, int, int, bool]]:
    result: list[tuple[int, int, int, bool]] = []
    for start, end, prot, shared in lines:
        if result and result[-1][1] == start and result[-1][2:] == (prot, shared):
            result[-1] = (result[-1][0], end, prot, shared)
        else:
            result.append((start, end, prot, shared))
    return result
