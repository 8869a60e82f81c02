# SPDX-License-Identifier: GPL-2.0-only
# The types of procfs.pyx.
from typing import NamedTuple

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
