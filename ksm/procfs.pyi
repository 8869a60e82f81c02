# SPDX-License-Identifier: GPL-2.0-only
# The types of procfs.pyx.
from typing import NamedTuple

PAGE_PRESENT: int
PAGE_KSM: int
PAGE_ZERO: int
PAGE_KSM_ZERO: int
PAGE_ANON: int
PAGE_SWAPPED: int
PAGE_THP: int
PAGE_FLAGS_SHIFT: int

class Vma(NamedTuple):
    start: int
    end: int
    prot: int
    shared: bool
    mergeable: bool
    pgoff: int

class Smap(NamedTuple):
    start: int
    end: int
    size: int
    rss: int
    anonymous: int
    ksm: int
    anon_huge_pages: int
    shmem_pmd_mapped: int
    swap: int
    vm_flags: tuple[str, ...]
