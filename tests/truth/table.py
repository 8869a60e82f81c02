# SPDX-License-Identifier: GPL-2.0-only
"""Both columns: what was predicted, and what happened."""

from __future__ import annotations

from typing import Any

from running import Outcome

NAMES = ("frames freed", "pages_sharing", "pages_shared", "ksm_zero_pages", "general_profit")
WITHIN = 0.01
INFORMED = ("pages_unshared", "pages_volatile")  # printed only


def rows_of(report: dict[str, Any], outcome: Outcome) -> list[tuple[str, int, int]]:
    """(name, predicted, happened)"""
    counted = {**outcome.counters, "frames freed": outcome.freed}
    said = {**report["ksm"], "frames freed": report["ledger"]["freed"]}
    return [(name, said[name], counted[name]) for name in (*NAMES, *INFORMED)]


def wrong(said: int, happened: int) -> bool:
    return abs(said - happened) > WITHIN * abs(happened)


def compare(what: str, report: dict[str, Any], outcome: Outcome) -> list[str]:
    """Print the table; the names of what was predicted wrong."""
    rows = rows_of(report, outcome)
    print(f"\n{what}: {report['passes']} passes of ksm scan, {outcome.counters['full_scans']} of the kernel in {outcome.seconds:.1f} s; "
          f"{outcome.memory.pages:,} pages in {outcome.memory.frames:,} frames, {outcome.memory.huge:,} of them in huge pages")
    print(f"  {'':16} {'ksm scan':>14} {'the kernel':>14}")
    failed = []
    for name, said, happened in rows:
        off = f"{100 * (said - happened) / happened:+.2f} %" if happened else ("" if said == happened else "more")
        bad = name in NAMES and wrong(said, happened)
        print(f"  {name:16} {said:>14,} {happened:>14,} {off:>9}{'  <<<' if bad else ''}")
        if bad:
            failed.append(name)
    return failed
