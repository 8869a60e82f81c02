# SPDX-License-Identifier: GPL-2.0-only
"""docs/fleet-example.md: its commands run, and lead to what it says. With guests: tests/truth/test_fleet.py."""

import os
import shutil
import signal
import subprocess

import example
import pytest

pytest.importorskip("numpy")
pytestmark = pytest.mark.once


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed (Debian: redis-server)")
def test_the_commands_of_the_page(tmp_path):
    environment = example.programs(tmp_path)
    with subprocess.Popen(
        ["bash", "-c", example.script(guests=False)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            output = ""
            for line in shell.stdout:
                output += line
                if line.startswith("- Fingerprints are of one moment"):
                    break
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
    found = example.check_what_is_left(tmp_path, output, guests=0)
    assert len({*found["plan"]["placement"].values()}) == 2
