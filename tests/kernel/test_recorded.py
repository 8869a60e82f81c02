# SPDX-License-Identifier: GPL-2.0-only
"""Workloads with the outcome that a kernel had, replayed on the port: every counter, page and event must be the same.

recorded/ holds random workloads, regress/ one for each bug that was found, reports/ public reports. Each file names its kernel. To record
files anew, as root on a machine that uses KSM for nothing else:

    python -m ksm.oracle record tests/kernel/{recorded,regress,reports}/*.json
"""

from pathlib import Path

import pytest

from ksm.oracle import recorded

HERE = Path(__file__).parent
FILES = sorted(path for folder in ("recorded", "regress", "reports") for path in (HERE / folder).glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded(path):
    assert recorded.replay(path) is None


def test_there_are_some():
    assert len(FILES) >= 30


def test_a_difference_is_found():
    data, outcome = recorded.load(FILES[0])
    outcome["records"][-1]["ksm"]["pages_sharing"] += 1
    found = recorded.first_difference(outcome, recorded.run_port(data["workload"], pages=True, events=True))
    assert found and found.where.endswith("pages_sharing") and found.kernel == found.port + 1


@pytest.mark.parametrize("path", FILES[:5], ids=lambda path: path.stem)
def test_packing(path):
    _, outcome = recorded.load(path)
    assert recorded.unpack(recorded.pack(outcome["records"])) == outcome["records"]
