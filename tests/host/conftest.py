# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures: a process in which the system may refuse calls, or which it may kill."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ksm


@pytest.fixture
def in_a_process():
    """Run a script in a process of its own, so that refused calls stay refused there only: what it prints. Exit code 77 skips the test."""
    def run(script, *arguments, code=0, error=""):
        path = [str(Path(ksm.__file__).resolve().parents[1]), str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        result = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], env=environment, capture_output=True, text=True)
        if result.returncode == 77:
            pytest.skip("not allowed here")
        assert result.returncode == code, result.stderr
        assert error in result.stderr
        return result.stdout

    return run
