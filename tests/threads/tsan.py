# SPDX-License-Identifier: GPL-2.0-only
"""Run stress.py under ThreadSanitizer, on a build made with KSM_TSAN=1: python tsan.py [SECONDS]

Fails when it reports a race that tsan.supp does not excuse.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    runtime = subprocess.run(["gcc", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True).stdout.strip()
    run = subprocess.run(
        ["setarch", "-R", sys.executable, HERE / "stress.py", *sys.argv[1:]],
        env={**os.environ, "LD_PRELOAD": runtime, "PYTHONPATH": str(HERE.parents[1]),
             "TSAN_OPTIONS": f"exitcode=66 suppressions={HERE / 'tsan.supp'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(run.stdout + run.stderr)
    races = run.stderr.count("WARNING: ThreadSanitizer")
    print(f"{races} races")
    return int(run.returncode != 0 or races > 0)


if __name__ == "__main__":
    sys.exit(main())
