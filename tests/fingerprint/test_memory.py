# SPDX-License-Identifier: GPL-2.0-only
"""A machine of fingerprints takes at most 4 % of the memory that it stands for: 163 bytes for a page of 4096."""

import subprocess
import sys

import pytest

MEASURE = r"""
import random
import sys

import ksm

PAGE, FRAME, CHUNK = 4096, 32, 8192
PAGES, duplicates = int(sys.argv[1]), sys.argv[2]


def frames(rng, kind):
    '''Frames of CHUNK pages: all different, or all in pairs of neighbours.'''
    different = CHUNK // 2 if kind == "pairs" else CHUNK
    made = bytearray(rng.randbytes(different * FRAME))
    for rest in range(20, FRAME):
        made[rest::FRAME] = bytes(different)
    if kind == "pairs":
        doubled = bytearray(2 * len(made))
        words, twice = memoryview(made), memoryview(doubled)
        for i in range(different):
            twice[2 * i * FRAME:2 * (i + 1) * FRAME] = bytes(words[i * FRAME:(i + 1) * FRAME]) * 2
        made = doubled
    return made


def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024


machine = ksm.Machine(PAGES * PAGE + (64 << 20), clock="manual", pages="fingerprints")
process = machine.spawn()
addr = process.mmap(PAGES * PAGE)
process.madvise(addr, PAGES * PAGE, ksm.MADV_MERGEABLE)
machine.ksm.smart_scan = 0
before = peak()
rng = random.Random(1)
for first in range(0, PAGES, CHUNK):
    kind = {"half": "pairs" if first < PAGES // 2 else "unique"}.get(duplicates, duplicates)
    process.load(addr + first * PAGE, frames(rng, kind))
for _ in range(4):
    machine.ksm.scan(1)
files = machine.ksm
assert files.pages_shared == files.pages_sharing == {"unique": 0, "half": PAGES // 4, "pairs": PAGES // 2}[duplicates]
assert files.pages_volatile == 0
print((peak() - before) / PAGES)
"""


@pytest.mark.slow
@pytest.mark.parametrize("duplicates, most", [("unique", 130), ("half", 150), ("pairs", 163)])
def test_a_page_takes_at_most_a_twenty_fifth(duplicates, most):
    """From start to settled, at its peak. Where all pages are in pairs, every second page has a stable node: nothing takes more."""
    run = subprocess.run([sys.executable, "-c", MEASURE, str(1 << 20), duplicates], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 100 < float(run.stdout) <= most
