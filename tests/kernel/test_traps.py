# SPDX-License-Identifier: GPL-2.0-only
"""What the port does where the kernel itself seems to err. README.md tells what the kernel does, and how that is known."""

from pathlib import Path

import pytest

from ksm.oracle import recorded
from ksm.oracle.kernel import leaves_traces, wrong_machine
from ksm.oracle.replay import run_port

TRAPS = Path(__file__).parent / "traps"


def replay(name):
    """Replay a trap: the workload, and the records that have counters."""
    data, _ = recorded.load(TRAPS / f"{name}.json")
    outcome = run_port(data["workload"], pages=True, events=True)
    return data["workload"], [record for record in outcome["records"] if "ksm" in record]


@pytest.mark.parametrize("path", sorted(TRAPS.glob("*.json")), ids=lambda path: path.stem)
def test_as_recorded(path):
    assert recorded.replay(path) is None


def test_a_merged_page_that_moved_cannot_be_merged_again():
    _, records = replay("trap-9")
    before, after = records[2], records[3:]
    assert (before["ksm"]["pages_shared"], before["ksm"]["pages_sharing"]) == (2, 1)
    for record in after:
        assert ["merge_with_ksm_page", "a", "ksm", "a/v/0", -14] in record["events"]
        assert record["pages"] == {"a": {"v": [1, 1], "w": [2, "-"]}}
        assert (record["ksm"]["pages_shared"], record["ksm"]["pages_sharing"], record["ksm"]["pages_volatile"]) == (1, 1, 1)


def test_zero_pages_that_a_child_did_not_get_are_counted_for_good():
    workload, records = replay("trap-26")
    assert [record["ksm"]["ksm_zero_pages"] for record in records] == [0, 3, 6, 6, 3, 3]
    assert records[-1]["procs"] == {}
    assert "until the next boot" in leaves_traces(workload)


def test_roots_that_come_back_into_use_are_empty():
    workload, records = replay("trap-28")
    assert [record["ksm"]["pages_unshared"] for record in records] == [0, 5, 1, 1, 1, 5, 5]
    assert wrong_machine(workload)      # this machine has too few nodes, or the workload would harm its kernel
    _, one_node = replay("trap-28-one-node")
    assert [record["ksm"]["pages_unshared"] for record in one_node] == [0, 5, 1, 1, 1, 5, 5]
