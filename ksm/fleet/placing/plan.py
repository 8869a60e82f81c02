# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""What ksm.fleet.place() returns: a placement, the moves that lead to it, what they save, and how far from the best it is."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.report import mib
from ksm.estimate.terminal import wrapped
from ksm.fleet.placing.state import State
from ksm.fleet.placing.tables import Headroom
from ksm.fleet.placing.text import in_bytes, rest, table
from ksm.host.text import printable

if TYPE_CHECKING:
    from ksm.fleet.placing.order import Step
    from ksm.fleet.placing.placing import Ended
    from ksm.fleet.placing.problem import Numbers, Problem

SHOWN = 20  # moves, and hosts

ENDED: dict[str, str] = {
    "proved": "",
    "rounds": "The search ended because it found nothing better for a long time.",
    "interrupted": "The search was interrupted, and may not have found much.",
    "time": "The search ended because its time was over (--seconds): with more, it may find more.",
}


class Plan(NamedTuple):
    """A placement. str() of it is what `ksm fleet place` prints; pages are distinct contents on each host, unless they are named otherwise.

    at       the host of each source, as a number
    least    pages that all hosts have at least in any placement that is as asked for
    error    the standard error of `saving` in pages, where contents are a sample
    """

    problem: Problem
    at: Numbers
    least: int
    ended: Ended
    steps: list[Step]
    seed: int
    headroom: Headroom
    sample: int = 1
    error: float = 0.0

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<ksm fleet plan: {self.answer}>"

    @property
    def before(self) -> int:
        """Pages that all hosts have now."""
        return self.problem.total(self.problem.start)

    @property
    def after(self) -> int:
        """Pages that all hosts have in the new placement."""
        return self.problem.total(self.at)

    @property
    def saving(self) -> int:
        """Pages that the new placement saves, on top of what is shared now."""
        return self.before - self.after

    @property
    def bound(self) -> int:
        """Pages that any placement saves at most."""
        return self.before - self.least

    @property
    def placement(self) -> dict[str, str]:
        """The host of each source."""
        return {source.name: self.problem.hosts[host].name for source, host in zip(self.problem.sources, self.at, strict=True)}

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        moved, sources = self.problem.moved(self.at), len(self.problem.sources)
        those = f"{moved:,} of {sources:,} sources"
        if not moved:
            return f"No placement was found that takes less than the {in_bytes(self.before)} of now."
        if self.saving <= 0:
            return f"To place them as asked, {those} move, and that costs {in_bytes(-self.saving)}: {self.change}."
        return f"Moving {those} would save {in_bytes(self.saving)}: {self.change}."

    @property
    def change(self) -> str:
        return f"{in_bytes(self.before)} of memory now, {in_bytes(self.after)} then"

    @property
    def emptied(self) -> int:
        """Hosts that have sources now, and none then."""
        return len({*self.problem.start.tolist()} - {*self.at.tolist()})

    def notes(self) -> list[str]:
        """What to know before believing the figures: a sentence each."""
        notes = [self.said_bound()]
        if self.problem.least:
            notes.append(f"A move has to be worth {in_bytes(self.problem.least)}: the search counts that for each.")
        if self.sample > 1:
            notes.append(
                f"Contents are one in {self.sample:,} of all: what is saved has a standard error of {in_bytes(round(self.error))}, and the "
                "bound is one of the sample. ksm fleet check counts all."
            )
            if self.problem.fit == "after":
                doubt = math.sqrt(max(map(int, self.problem.used(self.at))) * (self.sample - 1))
                notes.append(f"The memory of the fullest host has a standard error of {in_bytes(round(doubt))}: it may not fit.")
        notes.append(
            "What must fit into a host is " + (
                "its memory after sharing" if self.problem.fit == "after" else "all pages of its sources, before sharing"
            ) + ", beside the headroom. A host that is fuller now does not get fuller."
        )  # fmt: skip
        if left := self.emptied:
            notes.append(f"{left:,} host{' has' if left == 1 else 's have'} no sources any more.")
        over = [step for step in self.steps if step.over]
        if over:
            most = in_bytes(max(step.over for step in over))
            notes.append(
                f"{len(over):,} of the moves exceed{'s' if len(over) == 1 else ''} the capacity of a host, by {most} at most, until the"
                " next ones are made: no order was found in which all of them fit."
            )
        if any(step.waits for step in self.steps):
            waits = sum(step.waits for step in self.steps)
            notes.append(f"{waits:,} source{' waits' if waits == 1 else 's wait'} on a third host until there is room.")
        if any(step.meets for step in self.steps):
            notes.append("Some sources meet one that they must not meet, until that one moves.")
        if self.problem.fit == "after" and (loose := self.unmerged()):
            notes.append(
                f"{loose:,} of the moves fit{'s' if loose == 1 else ''} only when KSM has merged what came: until then, the host needs more"
                " than its capacity."
            )
        return notes

    def said_bound(self) -> str:
        none = "No placement saves" if self.sample == 1 else "By the sample, no placement saves"
        if self.saving == self.bound:
            return f"{none} more."
        if self.bound <= 0:
            return f"{ENDED[self.ended]} {none} anything.".lstrip()
        none += f" more than {in_bytes(self.bound)}, of which this is {100 * self.saving / self.bound:.1f} %."
        return f"{ENDED[self.ended]} {none}".lstrip()

    def unmerged(self) -> int:
        """Moves after which a host needs more than its capacity as long as nothing of what came is merged."""
        state = State(self.problem, self.problem.start)
        count = 0
        for step in self.steps:
            count += bool(state.used[step.host] + self.problem.pages[step.source] > self.problem.hosts[step.host].capacity)
            state.move(step.source, step.host)
        return count

    def json(self) -> dict[str, Any]:
        """All of it as `ksm fleet place --json` prints it. Everything is in pages."""
        problem = self.problem
        names = [host.name for host in problem.hosts]
        states = {"before": problem.start, "after": self.at}
        figures = {
            when: list(zip(problem.filled(at).tolist(), problem.used(at).tolist(), strict=True)) for when, at in states.items()
        }
        return {
            "before": self.before,
            "after": self.after,
            "saving": self.saving,
            "error": round(self.error),
            "bound": self.bound,
            "ended": self.ended,
            "seed": self.seed,
            "sample": self.sample,
            "fit": problem.fit,
            "moves": [
                {
                    "source": problem.sources[step.source].name, "from": names[step.origin], "to": names[step.host], "gain": step.gain,
                    "over": step.over, "meets": step.meets, "waits": step.waits,
                }
                for step in self.steps
            ],
            "hosts": [
                {
                    "name": host.name, "capacity": host.capacity, "limit": int(problem.limits[number]),
                    **{
                        when: {
                            "pages": figures[when][number][0], "used": figures[when][number][1],
                            "sources": [source.name for source, where in zip(problem.sources, at, strict=True) if where == number],
                        }
                        for when, at in states.items()
                    },
                }
                for number, host in enumerate(problem.hosts)
            ],
            "placement": self.placement,
            "notes": self.notes(),
        }  # fmt: skip

    def csv(self) -> str:
        """The new placement as a CSV file with the columns source and host, which --placement takes."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("source", "host"))
        writer.writerows(self.placement.items())
        return text.getvalue()

    def text(self, width: int = 80) -> str:
        """What `ksm fleet place` prints on a terminal of this many columns."""
        return "\n".join(line for line, _ in self.lines(width)) + "\n"

    def lines(self, width: int) -> Iterator[tuple[str, bool]]:
        """The lines, and whether each is bold."""
        yield from ((line, True) for line, _ in wrapped(self.answer, width, "", "  "))
        names = [printable(host.name) for host in self.problem.hosts]
        if self.steps:
            yield "", False
            rows = [
                (printable(self.problem.sources[step.source].name), names[step.origin], names[step.host], mib(step.gain * PAGE_SIZE))
                for step in self.steps[:SHOWN]
            ]
            yield from table(("Move", "from", "to", "MiB saved"), rows, 3, width)
            yield from rest(len(self.steps), SHOWN, "moves")
            yield "", False
            yield from self.hosts_table(names, width)
        yield "", False
        for note in self.notes():
            yield from wrapped(note, width, "- ", "  ")

    def hosts_table(self, names: list[str], width: int) -> Iterator[tuple[str, bool]]:
        """The hosts whose memory changes most."""
        used = [self.problem.used(at) for at in (self.problem.start, self.at)]
        counts = [[int((at == number).sum()) for number in range(len(names))] for at in (self.problem.start, self.at)]
        changed = [number for number in range(len(names)) if used[0][number] != used[1][number] or counts[0][number] != counts[1][number]]
        changed.sort(key=lambda number: -abs(int(used[1][number] - used[0][number])))
        rows = [
            (names[number], f"{counts[0][number]:,}", f"{counts[1][number]:,}", mib(int(used[0][number]) * PAGE_SIZE),
             mib(int(used[1][number]) * PAGE_SIZE), mib(self.problem.hosts[number].capacity * PAGE_SIZE))
            for number in changed[:SHOWN]
        ]  # fmt: skip
        yield from table(("Host", "sources", "then", "MiB now", "then", "capacity"), rows, 1, width)
        yield from rest(len(changed), SHOWN, "hosts that change")
