# SPDX-License-Identifier: GPL-2.0-only
"""Processes that go on writing, and ksmd at the pace that a kernel has after a boot. pytest -s prints what was said and what happened."""

import pytest
from columns import compare, wanting
from running import DEFAULT_PACE, Programs, predicted, said

pytestmark = pytest.mark.kernel

PAGES = 16384  # ksmd takes 3.3 s for them
SCANS = 6  # of the kernel: 20 s
SAME_BYTES = wanting("a write of the same bytes undoes a merge, and is not seen")


@pytest.mark.parametrize("kind, seconds", [
    pytest.param("rolling", 2, id="new contents, faster than ksmd"),
    pytest.param("rolling", 20, id="new contents, at times faster than ksmd", marks=pytest.mark.slow),
    pytest.param("rolling", 3600, id="new contents, slower than ksmd", marks=pytest.mark.slow),
    pytest.param("touching", 2, id="the same contents, faster than ksmd", marks=[SAME_BYTES, pytest.mark.slow]),
    pytest.param("touching", 3600, id="the same contents, slower than ksmd", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_writer_at_default_pace(kind, seconds, running, memory):
    with running(**DEFAULT_PACE) as kernel, Programs() as programs:
        said(programs.start(memory, kind, PAGES, seconds))
        pids = programs.pids()
        report = predicted(pids)
        outcome = kernel.merge(pids, scans=SCANS)
    failed = compare(f"{kind}, each page once in {seconds} s, 100 pages each 20 ms", report, outcome)
    assert failed == []
