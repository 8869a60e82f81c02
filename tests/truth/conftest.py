# SPDX-License-Identifier: GPL-2.0-only
"""Whether the running kernel's KSM can be used, and what a machine lacks for a workload."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from running import Running

from ksm.oracle.kernel import unavailable
from ksm.oracle.workload import OracleError

# In CI, only a kernel without KSM is an excuse.
NEEDED = bool(os.environ.get("CI") or os.environ.get("KSM_LIVE")) and Path("/sys/kernel/mm/ksm").exists()

patience = [60]  # seconds


def missing(reason, *, needed=NEEDED):
    (pytest.fail if needed else pytest.skip)(reason)


@pytest.fixture
def lacks():
    """Called with what a machine lacks: the test skips, or fails in CI."""
    return missing


@pytest.fixture
def running():
    """Take the kernel's KSM: with running(use_zero_pages=1) as kernel. Other programs may have mergeable processes, but not for long."""
    if reason := unavailable():
        missing(reason)

    def take(**settings):
        start = time.monotonic()
        while True:
            try:
                return Running(**settings)
            except OracleError as error:
                if not re.match("other processes|another program", str(error)) or time.monotonic() - start > patience[-1]:
                    patience.append(5)  # all tests together do not wait for minutes
                    missing(f"{error}; KSM_TRUTH_BESIDE=1 goes on beside them")
            time.sleep(0.5)

    return take


@pytest.fixture
def program():
    """The path of a program, whose package is named: program("redis-server", "redis-server")."""

    def find(name, package, *, needed=NEEDED):
        path = shutil.which(name)
        if path is None:
            missing(f"{name} is not installed (Debian: {package})", needed=needed)
        return path

    return find


@pytest.fixture(scope="session")
def memory(tmp_path_factory):
    """The compiled memory.c"""
    compiler = shutil.which("gcc")
    if compiler is None:
        missing("gcc is not installed (Debian: gcc libc6-dev)")
    path = tmp_path_factory.mktemp("memory") / "memory"
    subprocess.run([compiler, "-O2", "-o", path, Path(__file__).with_name("memory.c")], check=True)
    return path
