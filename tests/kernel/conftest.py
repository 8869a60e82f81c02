# SPDX-License-Identifier: GPL-2.0-only
"""Whether tests can use the running kernel's KSM. If not, the summary of the run says so."""

import os
import re
import time
from pathlib import Path

import pytest

from ksm.oracle.kernel import unavailable
from ksm.oracle.workload import OracleError

REASON = unavailable()
# In CI, only a kernel without KSM is an excuse.
NEEDED = bool(os.environ.get("CI") or os.environ.get("KSM_LIVE")) and Path("/sys/kernel/mm/ksm").exists()


def at_rest(call):
    """The call's answer, once KSM is free for it. Other programs may have mergeable processes, but not for long."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except OracleError as error:
            if not re.match("other processes|another program|.*does not repeat itself", str(error)):
                raise
            if time.monotonic() > deadline:
                (pytest.fail if NEEDED else pytest.skip)(str(error))
        time.sleep(0.5)


@pytest.fixture
def kernel_at_rest():
    if REASON:
        (pytest.fail if NEEDED else pytest.skip)(REASON)
    return at_rest


def pytest_terminal_summary(terminalreporter):
    if REASON:
        terminalreporter.section("NOT COMPARED WITH THE RUNNING KERNEL", red=True, bold=True)
        terminalreporter.line(f"{REASON}: only recorded outcomes could be used.")
