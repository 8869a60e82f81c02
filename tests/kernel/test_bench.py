# SPDX-License-Identifier: GPL-2.0-only
"""`ksm bench` beside the running kernel puts back every setting, also when it is terminated."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from ksm.oracle.kernel import KSM

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel_at_rest")]


def settings():
    return {file.name: file.read_text() for file in sorted(KSM.iterdir()) if file.stat().st_mode & 0o200}


@pytest.fixture
def bench():
    """The command. These tests run one after the other (tox -e live), so no other test changes settings meanwhile."""
    command = [sys.executable, "-m", "ksm", "bench", "--json", "--way", "ksmd", "--repeat", "1"]
    return lambda *more: subprocess.Popen([*command, *more], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_settings_are_put_back(bench):
    before = settings()
    deadline = time.monotonic() + 60
    while True:
        with bench("--pages", "2048", "--workload", "pairs", "--workload", "volatile") as running:
            out, err = running.communicate(timeout=100)
        if running.returncode == 0:
            break
        # Tests that run beside this one have mergeable processes too, but not for long.
        assert re.search("other processes|another program", err), err
        if time.monotonic() > deadline:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(err)
        time.sleep(0.5)
    pairs, volatile = (result["ways"]["ksmd"] for result in json.loads(out)["results"])
    assert pairs["pass 2"] > pairs["pass 1"] > 0
    assert pairs["unmerge"] > 0
    assert pairs["bytes a page"] == 64 * (2048 + 512) / 2048
    assert volatile["unmerge"] is None
    assert settings() == before


def test_settings_are_put_back_after_sigterm(bench):
    before = settings()
    with bench("--pages", "65536", "--workload", "unique") as running:
        deadline = time.monotonic() + 30
        while settings() == before and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=100)
    assert running.returncode in (143, 1)   # 1: it has refused meanwhile, because others have mergeable memory
    assert settings() == before
