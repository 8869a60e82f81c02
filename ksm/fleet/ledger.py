# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""The ledger of a fleet: what each page is. Each page is in one line."""

from __future__ import annotations

from typing import NamedTuple


class FleetLedger(NamedTuple):
    """In pages: zero + within + same_host + across_hosts + kept are all.

    zero            pages of zeros
    within          others that are equal to another one of their source: of n pages with a contents, n - 1
    same_host       what is left of these, and is in another source of the host: of n sources, n - 1
    across_hosts    what is left, and is on another host: of n hosts, n - 1
    kept            one page for each contents of the fleet
    """

    zero: int = 0
    within: int = 0
    same_host: int = 0
    across_hosts: int = 0
    kept: int = 0

    @property
    def pages(self) -> int:
        return sum(self)

    @property
    def saved(self) -> int:
        """Pages that are equal to another one of their host, other than zeros: what merging saves where all live now."""
        return self.within + self.same_host

    @property
    def left(self) -> int:
        """Pages that stay on all hosts then."""
        return self.across_hosts + self.kept


def ledger(pages: int, zero: int, of_sources: int, of_hosts: int, of_all: int) -> FleetLedger:
    """Of so many pages, with contents other than zeros counted in each source, on each host, and in all."""
    return FleetLedger(zero, pages - zero - of_sources, of_sources - of_hosts, of_hosts - of_all, of_all)
