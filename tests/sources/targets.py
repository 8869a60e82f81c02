# SPDX-License-Identifier: GPL-2.0-only
"""tests/sources/target.py, running: a process that runs the lines that a test sends it."""

import os
import subprocess
import sys
from pathlib import Path


class Target:
    """A process, and its pid."""

    def __init__(self, *prefix: str) -> None:
        command = [*prefix, sys.executable, str(Path(__file__).with_name("target.py"))]
        # A Python without a global lock maps a GiB at its start, of which gcore writes every page. So it maps 64 MiB (the unit is KiB).
        environment = {**os.environ, "MIMALLOC_ARENA_RESERVE": "65536"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.pid = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def do(self, line: str) -> None:
        self._send(line)
        assert self._line() == "done\n"

    def ask(self, expression: str) -> list[int]:
        """The numbers that an expression has in the target."""
        self._send(f"print(*({expression}), flush=True)")
        answer = self._line()
        assert self._line() == "done\n"
        return [int(number) for number in answer.split()]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
