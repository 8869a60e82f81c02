# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it has counters of all pages together, and knows no tenants.
"""A scan that says more: what pictures are made of, and what tenants have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ksm.estimate.details import make_details
from ksm.estimate.pace import BUDGET
from ksm.estimate.result import Result
from ksm.estimate.scan import Scan
from ksm.estimate.shares import Shares
from ksm.estimate.tenants import make_tenants
from ksm.host.memory import available_memory
from ksm.host.text import size
from ksm.sources import Source, SourceError

CLASS_OF_CONTENT = 250  # bytes, while the sources are read once more for the classes of what tenants have in common
SHARE_OF_PAGE = 60  # bytes of a merged page: a share of its source, and half of a content, if all are pairs


class CloserScan(Scan):
    """A Scan whose result has details, or tenants, or both.

    details   keep what pictures are made of; `contents`: also the first bytes of the contents that free most
    tenants   the sources of each, by its name; a source has one tenant at most
    """

    keeps_states = True

    def __init__(
        self,
        sources: list[Source],
        *,
        details: bool = False,
        contents: bool = False,
        tenants: Mapping[str, Sequence[Source]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(sources, **options)
        self.details, self.contents, self.tenants = details, contents, tenants
        self.settings: Mapping[str, str] = options.get("settings") or {}
        self.key: bytes | None = options.get("key")

    def run(self, passes: int | None = None, interval: float | None = None, budget: float = BUDGET) -> Result:
        """SourceError also where there is no memory for a machine of each tenant."""
        result = super().run(passes, interval, budget)
        self.progress("looking who shares what", 0, 0)
        needed = (self.counter("pages_shared") + self.counter("pages_sharing")) * SHARE_OF_PAGE
        if self.tenants is not None and self.machine.pages == "fingerprints":
            needed += self.counter("pages_shared") * CLASS_OF_CONTENT
        if needed > available_memory():
            left = size(available_memory())
            raise SourceError(f"not enough memory: to look who shares what takes {size(needed)}, and {left} are available")
        shares = Shares(self.machine)
        for source in self.sources:
            shares.next_source()
            for start, words in source.page_tables():
                source.repeat(start, words)
                shares.add(start, words)
        shares.done()
        if self.details:
            made = make_details(self.sources, self.machine, shares, self.states, key=self.key, contents=self.contents)
            result = result._replace(details=made)
        if self.tenants is not None:
            result = result._replace(tenants=make_tenants(self, shares, result, self.tenants, settings=self.settings, key=self.key))
        return result
