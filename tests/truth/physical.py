# SPDX-License-Identifier: GPL-2.0-only
"""What processes take of this computer's memory, counted by frame numbers. None of ksm's own code is used, which is what is tested."""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PAGE = 4096
PRESENT, FILE_OR_SHARED, FRAME = 1 << 63, 1 << 61, (1 << 55) - 1  # of an entry of /proc/PID/pagemap
ANON, KSM, HUGE, ZERO_PAGE = 1 << 12, 1 << 21, 1 << 22, 1 << 24  # of an entry of /proc/kpageflags
AT_ONCE = 1 << 16  # entries of pagemap
WINDOW = 1 << 12  # entries of kpageflags
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)\n(?:\w.*\n)*?Rss: +(\d+) kB", re.MULTILINE)  # of smaps
VAST = 1 << 30  # bytes: a mapping of which so much is only reserved


class Memory(NamedTuple):
    """Private anonymous memory of some processes: pages that they map, frames for these, and of the frames: KSM's, and parts of huge pages.

    zero    pages that map the kernel's page of zeros, which is no frame of theirs
    merged  pages that map a frame of KSM's
    """

    pages: int
    frames: int
    zero: int
    ksm: int
    huge: int
    merged: int

    @property
    def saved(self) -> int:
        """Pages without a frame of their own. What merging frees is what is added here, also while a process maps and unmaps memory."""
        return self.pages + self.zero - self.frames


def memory_of(pids: Iterable[int]) -> Memory:
    """Of these processes together. One that exits meanwhile is left out."""
    seen: Counter[int] = Counter()
    for pid in pids:
        try:
            for words in pagemap(pid):
                seen.update(word & FRAME for word in words if word & PRESENT and not word & FILE_OR_SHARED)
        except (FileNotFoundError, ProcessLookupError):
            continue
    pages = frames = zero = ksm = huge = merged = 0
    for frame, flags in kpageflags(seen):
        if flags & ANON:
            pages += seen[frame]
            frames += 1
            if flags & KSM:
                ksm += 1
                merged += seen[frame]
            huge += bool(flags & HUGE)
        elif flags & ZERO_PAGE:
            zero += seen[frame]
    return Memory(pages, frames, zero, ksm, huge, merged)


def pagemap(pid: int) -> Iterator[array[int]]:
    """The entries of all mappings, in parts, without parts in which nothing is."""
    with open(f"/proc/{pid}/smaps") as text, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        for start, end, name, size in MAPPING.findall(text.read()):
            place, last = int(start, 16) // PAGE, int(end, 16) // PAGE
            if name == "[vsyscall]" or (size == "0" and last - place > VAST // PAGE):
                continue
            while place < last:
                data = os.pread(file.fileno(), 8 * min(AT_ONCE, last - place), 8 * place)
                if not data:
                    return  # it exits
                if data.count(0) != len(data):
                    yield array("Q", data)
                place += len(data) // 8


def kpageflags(frames: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(frame, its flags)"""
    with open("/proc/kpageflags", "rb", buffering=0) as file:
        first, words = -WINDOW, array("Q")
        for frame in sorted(frames):
            if frame >= first + WINDOW:
                first = frame // WINDOW * WINDOW
                data = os.pread(file.fileno(), 8 * WINDOW, 8 * first)
                words = array("Q", data[: len(data) // 8 * 8])
            if frame - first < len(words):
                yield frame, words[frame - first]
