# SPDX-License-Identifier: GPL-2.0-only
"""Both columns: what was predicted, and what happened."""

from __future__ import annotations

from typing import Any, NamedTuple

import physical
import pytest
from running import Outcome

NAMES = ("frames freed", "pages_sharing", "pages_shared", "ksm_zero_pages", "general_profit")
INFORMED = ("pages_unshared", "pages_volatile")  # these are printed only: smart_scan moves pages from one to the other all the time
WITHIN = 0.01
# What a page that is freed, or is not, can add to each: the report's range is one of pages that are freed
PER_PAGE = {"frames freed": 1, "pages_sharing": 1, "pages_shared": 1, "general_profit": physical.PAGE}


def wanting(reason: str) -> pytest.MarkDecorator:
    """A mark for what ksm scan is known to say wrongly. A scan that fails is no such thing."""
    return pytest.mark.xfail(reason=reason, raises=AssertionError, strict=True)


class Row(NamedTuple):
    name: str
    said: int
    least: int
    most: int
    happened: int

    @property
    def right(self) -> bool:
        """Within 1 % of what happened, or within the range."""
        return abs(self.said - self.happened) <= WITHIN * abs(self.happened) or self.least <= self.happened <= self.most

    def __str__(self) -> str:
        off = f"{100 * (self.said - self.happened) / self.happened:+.2f} %" if self.happened else ("" if self.said == 0 else "more")
        between = f"  {self.least:,} to {self.most:,}" if self.least != self.most else ""
        wrong = "  <<<" if self.name in NAMES and not self.right else ""
        return f"  {self.name:16} {self.said:>14,} {self.happened:>14,} {off:>10}{between}{wrong}"


def rows_of(report: dict[str, Any], outcome: Outcome) -> list[Row]:
    happened = {**outcome.counters, "frames freed": outcome.freed}
    said = {**report["ksm"], "frames freed": report["ledger"]["freed"]}
    fewer = report["ledger"]["freed"] - report["freed"]["least"]
    more = report["freed"]["most"] - report["ledger"]["freed"]
    return [
        Row(name, said[name], said[name] - fewer * PER_PAGE.get(name, 0), said[name] + more * PER_PAGE.get(name, 0), happened[name])
        for name in (*NAMES, *INFORMED)
    ]


def compare(what: str, report: dict[str, Any], outcome: Outcome) -> list[str]:
    """Print the table; the names of what was predicted wrong."""
    rows = rows_of(report, outcome)
    print(f"\n{what}: {report['passes']} passes of ksm scan, {outcome.counters['full_scans']} of the kernel in {outcome.seconds:.1f} s; "
          f"{outcome.memory.pages:,} pages in {outcome.memory.frames:,} frames, {outcome.memory.huge:,} of them in huge pages")
    print(f"  {'':16} {'ksm scan':>14} {'the kernel':>14}")
    for row in rows:
        print(row)
    return [row.name for row in rows if row.name in NAMES and not row.right]
