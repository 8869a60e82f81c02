# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: how the memory of a process that runs elsewhere is mapped here.
"""Blocks of 2 MiB, in which a process of the machine has the pages of a real one."""

from __future__ import annotations

from ksm.constants import MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_READ, PROT_WRITE
from ksm.process import Process
from ksm.sources.base import HIGHEST, LOWEST
from ksm.sources.pieces import Run
from ksm.sources.runs import without
from ksm.sources.stream import BLOCK


def fault_huge(process: Process, huge: list[Run], runs: list[Run]) -> None:
    """Fault huge pages into these blocks, where the process has nothing yet, and unmap the parts that are in no run. OSError.

    No other thread may use the machine meanwhile: its faults would get huge pages, too.
    """
    machine = process.machine
    mode = machine.transparent_hugepage
    try:
        machine.transparent_hugepage = "always"
        for start, end in huge:
            for block in range(start, end, BLOCK):
                process.touch(block)
    finally:
        machine.transparent_hugepage = mode
    for start, end in without(huge, runs):
        process.madvise(start, end - start, MADV_DONTNEED)


def map_blocks(process: Process, old: list[Run], new: list[Run]) -> None:
    """Map the new blocks in place of the old ones. OSError."""
    for start, end in without(old, new):
        process.munmap(start, end - start)
    for start, end in without(new, old):
        process.mmap(end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, addr=start)


def blocks_of(runs: list[Run]) -> list[Run]:
    """The blocks in which the runs lie, neighbours joined."""
    blocks: list[Run] = []
    for start, end in runs:
        first = max(start // BLOCK * BLOCK, LOWEST)
        last = min(-(-end // BLOCK) * BLOCK, HIGHEST)
        if blocks and first <= blocks[-1][1]:
            blocks[-1] = (blocks[-1][0], max(last, blocks[-1][1]))
        else:
            blocks.append((first, last))
    return blocks
