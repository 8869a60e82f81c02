# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""What KSM would do on each host, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ksm.constants import PAGE_SIZE
from ksm.estimate.ledger import Ledger
from ksm.estimate.report import mib, percent
from ksm.estimate.terminal import wrapped
from ksm.fleet.placing.text import in_bytes, rest, table
from ksm.host.text import printable

if TYPE_CHECKING:
    from ksm.fleet.checking import Check

SHOWN = 50  # hosts
HEADS = ("Host", "sources", "MiB", "kept", "freed", "%")


def answer(check: Check) -> str:
    """The answer in a sentence."""
    ledger = check.ledger
    if not ledger.pages:
        return "There are no pages that KSM could merge."
    said = f"KSM would free {in_bytes(ledger.freed)} of {in_bytes(ledger.pages)} ({percent(ledger.freed, ledger.pages)})"
    if check.saving is None:
        return f"{said} on {len(check.hosts):,} host{'' if len(check.hosts) == 1 else 's'}."
    if check.saving < 0:
        return f"{said}, {in_bytes(-check.saving)} less than where the sources are now."
    return f"{said}, {in_bytes(check.saving)} more than where the sources are now."


def notes(check: Check) -> list[str]:
    """What to know before believing the figures: a sentence each."""
    found = ["Fingerprints are of one moment, and KSM merges less where pages are written to: this overstates."]
    results = [host.result for host in check.hosts if host.result is not None]
    if zeros := sum(source.zeros for result in results for source in result.sources):
        found.append(
            f"{in_bytes(zeros)} are pages of zeros in images, which may never have been touched: they are set apart (--zeros count counts"
            " them)."
        )
    if unsettled := sum(not result.settled for result in results):
        found.append(f"On {unsettled:,} of the hosts, the last pass still changed something: more passes may free more.")
    return found


def lines(check: Check, width: int, more: Sequence[str] = ()) -> Iterator[tuple[str, bool]]:
    """The lines, and whether each is bold."""
    yield from ((line, True) for line, _ in wrapped(answer(check), width, "", "  "))
    yield "", False
    now = {host.name: host.ledger for host in check.now or ()}
    heads = HEADS if check.now is None else (*HEADS, "kept now")
    rows = [row(printable(host.name), len(host.sources), host.ledger, now.get(host.name)) for host in check.hosts[:SHOWN]]
    if len(check.hosts) > 1:
        whole = None if check.now is None else check.ledger_now
        rows.append(row("all", sum(len(host.sources) for host in check.hosts), check.ledger, whole))
    yield from table(heads, rows, 1, width)
    yield from rest(len(check.hosts), SHOWN, "hosts")
    yield "", False
    for note in [*notes(check), *more]:
        yield from wrapped(note, width, "- ", "  ")


def row(name: str, sources: int, ledger: Ledger, now: Ledger | None) -> tuple[str, ...]:
    """Figures of a host; `now` those of the placement to compare with."""
    sizes = [mib(pages * PAGE_SIZE) for pages in (ledger.pages, ledger.kept, ledger.freed)]
    return (name, f"{sources:,}", *sizes, percent(ledger.freed, ledger.pages), *(() if now is None else (mib(now.kept * PAGE_SIZE),)))
