# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures: a process that runs the lines that a test sends it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


class Target:
    """tests/sources/target.py, running."""

    def __init__(self, *prefix):
        command = [*prefix, sys.executable, str(Path(__file__).with_name("target.py"))]
        # A Python without a global lock maps a GiB at its start, of which gcore writes every page. So it maps 64 MiB (the unit is KiB).
        environment = {**os.environ, "MIMALLOC_ARENA_RESERVE": "65536"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.pid = int(self.process.stdout.readline())

    def do(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def ask(self, expression):
        """The numbers that an expression has in the target."""
        self.process.stdin.write(f"print(*({expression}), flush=True)\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert self.process.stdout.readline() == "done\n"
        return [int(number) for number in answer.split()]

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start():
    """A function that starts a target. All targets end with the test."""
    targets = []

    def start(*prefix):
        targets.append(Target(*prefix))
        return targets[-1]

    yield start
    for target in targets:
        target.end()


@pytest.fixture
def target(start):
    return start()
