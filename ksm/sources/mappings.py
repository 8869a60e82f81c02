# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the other side of fs/proc/task_mmu.c and fs/proc/base.c.
"""Which mappings of a process KSM may look at, decided as mm/ksm.c does, from the text of its files in /proc."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from ksm.sources.base import HIGHEST, LOWEST
from ksm.sources.standing import bytes_in

Which = Literal["prctl", "advised", "is"]
"""Which mappings count.

prctl     those that are mergeable after prctl(PR_SET_MEMORY_MERGE), called now. ksm_enable_merge_any() flags each mapping that
          vma_ksm_compatible() takes, also what MADV_UNMERGEABLE was for. If the process has called it before, it does nothing.
advised   those that are mergeable already: with the flag VM_MERGEABLE, "mg" in smaps. ksmd looks at no others.
is        the same, and the report names the others
"""
EACH_WHICH: tuple[Which, ...] = get_args(Which)

# What vma_ksm_compatible() of mm/ksm.c refuses: shared, may be shared, IO, PFN map, do not expand, mixed map, hugetlb, droppable
REFUSED = frozenset({"sh", "ms", "io", "pf", "de", "mm", "ht", "dp"})
MERGEABLE = "mg"
LOCKED = "lo"


class Mapping(NamedTuple):
    """A mapping of a process. `anonymous`, `common` and `merged` are bytes of memory.

    mergeable   it has the flag VM_MERGEABLE: KSM may have merged some of it
    name        as maps has it: "[stack]", the file, or ""
    anonymous   pages that are no file's
    common      of those, at most: what is left when each page counts as 1 / mappings of its frame
    merged      of those, what KSM has merged; 0 before Linux 6.8
    locked      mlock(): a huge page that is split keeps its zeros
    shared      it has huge pages, and pages that others map, too
    """

    start: int
    end: int
    anonymous: int
    mergeable: bool
    name: str = ""
    common: int = 0
    merged: int = 0
    locked: bool = False
    shared: bool = False

    @property
    def kind(self) -> str:
        """What a report calls it."""
        return self.name if self.name.startswith("[") else "copies of files" if self.name else "anonymous mappings"


def mappings_of(smaps: str) -> Iterator[Mapping]:
    """The mappings of /proc/PID/smaps that are mergeable, or could be."""
    first, *others = smaps.split("\nVmFlags:")
    for other in others:
        # What comes before the flags belongs to them, what comes after their line to the next mapping.
        mapping, (flags, _, first) = first, other.partition("\n")
        names = set(flags.split())
        header, _, figures = mapping.partition("\n")
        addresses, permissions, _, _, _, *name = header.split(None, 5)
        if permissions[3] != "p" or (names & REFUSED and MERGEABLE not in names):
            continue
        start, _, end = addresses.partition("-")
        begin, last = max(int(start, 16), LOWEST), min(int(end, 16), HIGHEST)
        if begin < last:
            common = merged = 0
            if anonymous := bytes_in(figures, "\nAnonymous:"):
                # Pages of files are in Rss and Pss, too. If they have several mappings, this is more than the truth.
                common = min(anonymous, bytes_in(figures, "\nRss:") - bytes_in(figures, "\nPss:"))
                merged = bytes_in(figures, "\nKSM:") if MERGEABLE in names else 0
            shared = bool(bytes_in(figures, "\nAnonHugePages:")) and (
                bytes_in(figures, "\nShared_Clean:") + bytes_in(figures, "\nShared_Dirty:") > 0
            )
            yield Mapping(begin, last, anonymous, MERGEABLE in names, name[0] if name else "", common, merged, LOCKED in names, shared)


def parted(mappings: Iterable[Mapping], which: Which, merge_any: bool) -> tuple[list[Mapping], list[Mapping]]:
    """The mappings that count, and those that could be mergeable and are not. `merge_any`: the process has called prctl() already."""
    every = which == "prctl" and not merge_any
    taken: list[Mapping] = []
    left: list[Mapping] = []
    for mapping in mappings:
        (taken if every or mapping.mergeable else left).append(mapping)
    return taken, left


def by_kind(mappings: Iterable[Mapping]) -> Counter[str]:
    """Bytes of anonymous memory, by what a report calls the mappings."""
    result: Counter[str] = Counter()
    for mapping in mappings:
        if mapping.anonymous:
            result[mapping.kind] += mapping.anonymous
    return result


def ksm_stat_of(text: str) -> dict[str, int]:
    """/proc/PID/ksm_stat: counts, and 1 or 0 for yes or no. ksm_merge_any is there since Linux 6.14."""
    result: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.replace(":", " ").partition(" ")
        value = value.strip()
        result[name] = int(value == "yes") if value in ("yes", "no") else int(value)
    return result
