# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""What ksm.fleet.check() returns: what KSM would do on each host of a placement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.ledger import Ledger
from ksm.estimate.report import mib, percent
from ksm.estimate.result import Result
from ksm.estimate.terminal import wrapped
from ksm.fleet.placing.text import in_bytes, rest, table
from ksm.host.text import printable

SHOWN = 50  # hosts
HEADS = ("Host", "sources", "MiB", "kept", "freed", "%")


class HostCheck(NamedTuple):
    """A host: its sources, and what KSM would do there; None for a host without pages."""

    name: str
    sources: list[str]
    result: Result | None

    @property
    def ledger(self) -> Ledger:
        return Ledger(*[0] * len(Ledger._fields)) if self.result is None else self.result.ledger


class Check(NamedTuple):
    """What KSM would do on each host of a placement. `now` has the same for the placement of the files, where that was asked for, too."""

    hosts: list[HostCheck]
    now: list[HostCheck] | None = None

    @property
    def ledger(self) -> Ledger:
        """All hosts together, in pages; see ksm.estimate.ledger."""
        return total(self.hosts)

    @property
    def ledger_now(self) -> Ledger:
        """The same where the sources are now."""
        return total(self.now or self.hosts)

    @property
    def saving(self) -> int | None:
        """Pages that are freed more than now, or None if that was not asked for."""
        return None if self.now is None else self.ledger.freed - self.ledger_now.freed

    def json(self) -> dict[str, Any]:
        """All of it as `ksm fleet check --json` prints it: pages, but for metadata and profit, which are in bytes."""
        value: dict[str, Any] = {
            "ledger": self.ledger.as_json(), "hosts": [host_json(host) for host in self.hosts], "notes": notes(self),
        }  # fmt: skip
        if self.now is not None:
            value["saving"] = self.saving
            value["now"] = {"ledger": self.ledger_now.as_json(), "hosts": [host_json(host) for host in self.now]}
        return value

    def text(self, width: int = 80) -> str:
        """What `ksm fleet check` prints on a terminal of this many columns."""
        return "\n".join(line for line, _ in self.lines(width)) + "\n"

    def lines(self, width: int, more: Sequence[str] = ()) -> Iterator[tuple[str, bool]]:
        """The lines, with `more` notes, and whether each is bold."""
        return lines(self, width, more)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<ksm fleet check: {answer(self)}>"


def total(hosts: Sequence[HostCheck]) -> Ledger:
    return Ledger(*map(sum, zip(*(host.ledger for host in hosts), strict=True))) if hosts else Ledger(*[0] * len(Ledger._fields))


def host_json(host: HostCheck) -> dict[str, Any]:
    value: dict[str, Any] = {"name": host.name, "sources": host.sources, "ledger": host.ledger.as_json()}
    if host.result is not None:
        value.update(ksm=host.result.ksm, passes=host.result.passes, settled=host.result.settled, zeros=zeros_of(host.result))
    return value


def zeros_of(result: Result) -> int:
    """Pages of zeros that were set apart."""
    return sum(source.zeros for source in result.sources)


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
