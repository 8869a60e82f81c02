# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: ksmd does not know what a page costs it.
"""What a page costs ksmd, measured with the port's own steps."""

from __future__ import annotations

import math
import random
import time

from ksm.constants import MADV_MERGEABLE, PAGE_SIZE
from ksm.machine import Machine

MOST = 8192  # pages of the larger of two measurements; the other has a quarter
LEAST = 2048
BLOCK = 1 << 20
SPARE = 4096  # pages of the machine for page tables and others


def measured(pages: int) -> float:
    """Seconds of a processor that ksmd takes to look at a page, among so many.

    It is measured here, over pages that are all different, on a machine that takes each of the kernel's steps: a checksum, and comparisons
    on the way down the unstable tree. A larger tree is deeper, and less of it is in the caches. So two sizes are measured, and what four
    times as many pages add goes on, as the logarithm does.
    """
    most = min(MOST, max(LEAST, pages))
    small, large = a_page(most // 4), a_page(most)
    return max(small, large + (large - small) / 2 * max(0.0, math.log2(max(1, pages) / most)))


def a_page(pages: int) -> float:
    with Machine(memory=(pages + SPARE) * PAGE_SIZE, plain=True) as machine:
        if "smart_scan" in machine.ksm.names():
            machine.ksm.store("smart_scan", "0")
        process = machine.spawn()
        start = process.mmap(pages * PAGE_SIZE)
        contents = random.Random(pages)
        block = contents.randbytes(BLOCK)
        for at in range(0, pages * PAGE_SIZE, BLOCK):
            process.write(start + at, block[: pages * PAGE_SIZE - at])
        for at in range(0, pages * PAGE_SIZE, PAGE_SIZE):
            process.write(start + at, contents.randbytes(8))
        process.madvise(start, pages * PAGE_SIZE, MADV_MERGEABLE)
        machine.ksm.scan(1)  # takes the checksums, and puts nothing into a tree
        best = math.inf
        for _ in range(2):
            began = time.thread_time()
            machine.ksm.scan(1)
            best = min(best, (time.thread_time() - began) / pages)
        return best
