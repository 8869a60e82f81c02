# SPDX-License-Identifier: GPL-2.0-only
"""The benchmarks run, on little memory; their figures are for people."""

import json
import subprocess
import sys
from pathlib import Path

PASSES = Path(__file__).resolve().parents[1] / "benchmarks" / "passes.py"


def run(*arguments):
    command = [sys.executable, str(PASSES), "--pages", "600", "--repeat", "1", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def test_passes_as_json():
    report = json.loads(run("--json"))
    assert (report["pages"], report["repeat"]) == (600, 1)
    cases = {case["case"]: case for case in report["cases"]}
    merged = {name: (case["pages_shared"], case["pages_sharing"]) for name, case in cases.items()}
    # max_page_sharing is 256: three copies of what all pages hold.
    assert merged == {"unique": (0, 0), "duplicates": (300, 300), "identical": (3, 597)}
    for case in cases.values():
        assert len(case["pages_per_second"]) == 3
        assert min(case["pages_per_second"]) > 0
        assert case["peak"] > 600 * 4096


def test_passes_as_a_table():
    table = run("--case", "duplicates", "--differ", "4088")
    assert "duplicates" in table
    assert "unique" not in table
