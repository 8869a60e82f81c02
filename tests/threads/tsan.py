# SPDX-License-Identifier: GPL-2.0-only
"""Run the stress programs under ThreadSanitizer, on a build made with KSM_TSAN=1: python tsan.py [SECONDS]

Fails when ThreadSanitizer reports a race that tsan.supp does not excuse.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def races(program: str) -> bool:
    """Whether the program meets a race, or fails."""
    runtime = subprocess.run(["gcc", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True).stdout.strip()
    run = subprocess.run(
        ["setarch", "-R", sys.executable, HERE / program, *sys.argv[1:]],
        env={**os.environ, "LD_PRELOAD": runtime, "PYTHONPATH": str(HERE.parents[1]),
             "TSAN_OPTIONS": f"history_size=7 exitcode=66 suppressions={HERE / 'tsan.supp'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(run.stdout + run.stderr)
    found = run.stderr.count("WARNING: ThreadSanitizer")
    print(f"{program}: {found} races")
    return run.returncode != 0 or found > 0


def main() -> int:
    programs = ("stress.py", "stress_swap.py", "stress_check.py", "stress_read.py", "stress_fingerprints.py")
    return int(any([races(program) for program in programs]))


if __name__ == "__main__":
    sys.exit(main())
