# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: KSM counts what has happened, and a scan says what would.
"""How far a prediction may be off, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ksm.estimate.ledger import Ledger


class Doubt(NamedTuple):
    """Something that a scan cannot see. `fewer` of the pages that the ledger has as freed may stay, `more` pages may be freed besides."""

    fewer: int
    more: int
    why: str  # a sentence for the report


class Freed(NamedTuple):
    """Pages that would be freed, at least and at most."""

    least: int
    most: int


def freed_between(ledger: Ledger, doubts: Iterable[Doubt]) -> Freed:
    """The range of what would be freed. Doubts add up, since each may come true."""
    doubts = list(doubts)
    least = ledger.freed - sum(doubt.fewer for doubt in doubts)
    most = ledger.freed + sum(doubt.more for doubt in doubts)
    return Freed(max(min(0, ledger.freed), least), min(max(ledger.pages, ledger.freed), most))
