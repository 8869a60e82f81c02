# SPDX-License-Identifier: GPL-2.0-only
"""Kinds of memory, a process for each: what ksm scan says of each is what the running kernel then does. pytest -s prints both."""

import contextlib
from pathlib import Path

import pytest
from columns import compare
from running import Programs, at_rest, predicted, said

from ksm.oracle.zram import CONTROL, Swap

pytestmark = pytest.mark.kernel

# Kinds that are looked at together. What a pipe refers to is asked for nowhere: it stands alone.
SMALL = ["plain", "zeros", "never-written", "private-file", "private-file-read", "memfd", "memfd-shared", "shared", "hugetlb", "no-access",
         "read-only", "locked", "free", "swapped"]  # fmt: skip
HUGE = ["huge", "huge-zeros", "huge-touched", "huge-locked-zeros", "zeros"]
PAGES = 2048

# What ksm scan cannot see
IN_DOUBT = ("in-pipes",)  # the report has a range, and does not know of which process
HUGETLB = Path("/proc/sys/vm/nr_hugepages")


@contextlib.contextmanager
def hugetlb_pages(more):
    before = HUGETLB.read_text()
    try:
        HUGETLB.write_text(str(int(before) + more))
        yield
    finally:
        HUGETLB.write_text(before)


@pytest.mark.parametrize("kinds, use_zero_pages", [
    pytest.param(SMALL, 0, id="small pages"),
    pytest.param(SMALL, 1, id="small pages, zero page", marks=pytest.mark.slow),
    pytest.param(HUGE, 0, id="huge pages"),
    pytest.param(HUGE, 1, id="huge pages, zero page"),
    pytest.param(["unmergeable", "plain"], 0, id="unmergeable"),
    pytest.param(["pinned", "plain"], 0, id="pinned"),
    pytest.param(["in-pipes", "plain"], 0, id="in pipes"),
])  # fmt: skip
def test_kinds_of_memory(kinds, use_zero_pages, running, memory):
    with running(use_zero_pages=use_zero_pages) as kernel, hugetlb_pages(PAGES // 512), contextlib.ExitStack() as stack:
        if "swapped" in kinds and CONTROL.exists():
            stack.callback(Swap(2 * PAGES).close)
        programs = stack.enter_context(Programs())
        processes = {programs.start(memory, kind).pid: kind for kind in kinds if kind != "swapped" or CONTROL.exists()}
        for process in programs.started:
            said(process)
        at_rest(processes)
        report = predicted(processes)
        outcome = kernel.merge(processes, each=True)
    failed = compare(f"{len(kinds)} kinds of memory, use_zero_pages={use_zero_pages}", report, outcome)
    print(f"  {'in each process':18} {'merging':>17} {'zero':>17} {'freed':>8}")
    said_of = {int(source["name"].split()[1]): source for source in report["sources"]}
    for pid, kind in processes.items():
        own, source = outcome.own[pid], said_of[pid]
        pairs = [(source[name], own[name]) for name in ("ksm_merging_pages", "ksm_zero_pages")]
        bad = any(abs(one - other) > PAGES // 100 for one, other in pairs)
        print(f"  {kind:18} " + " ".join(f"{one:>8,} {other:>8,}" for one, other in pairs) + f" {own['freed']:>8,}{'  <<<' if bad else ''}")
        failed += [kind] * (bad and kind not in IN_DOUBT)
    assert failed == []
