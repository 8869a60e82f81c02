# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""From fingerprint files, capacities and wishes to a problem; and from its answer to a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ksm.constants import PAGE_SIZE
from ksm.fleet import queries
from ksm.fleet.asking import Answers, asking
from ksm.fleet.engines.steps import Options
from ksm.fleet.files import NO_TENANT, Fleet, FleetError
from ksm.fleet.placing import SECONDS
from ksm.fleet.placing.order import ordered
from ksm.fleet.placing.placing import ROUNDS, Progress, no_progress, place
from ksm.fleet.placing.plan import Plan
from ksm.fleet.placing.problem import Fit, Host, PlaceError, Problem, Source, merge_groups, own_of
from ksm.fleet.placing.tables import Headroom, Room, Wishes, apart_of, numbers_of, read_hosts, read_wishes, rooms_of
from ksm.host.text import printable, size

USUAL = Headroom(share=0.1)
MOST_PAGES = 20_000_000  # that are looked at if nobody says: sets of sources may be nearly as many, and are kept in memory
ZERO = 0  # the class of pages of zeros, as a number


@dataclass(frozen=True)
class Asked:
    """What a user asks for. `hosts` is a CSV file, or capacities in pages by the names of hosts; `capacity`, in pages, is that of all
    others. `placement` is a CSV file.

    apart, pinned   names of sources, or patterns of them: in sets, and single ones
    tenants_apart   a host has sources of one tenant only
    moves           how many sources may move
    least           pages that a move has to be worth
    """

    hosts: str | Mapping[str, int] | None = None
    capacity: int | None = None
    placement: str | None = None
    headroom: Headroom = USUAL
    fit: Fit = "after"
    apart: Sequence[Sequence[str]] = ()
    pinned: Sequence[str] = ()
    tenants_apart: bool = False
    moves: int | None = None
    least: int = 0
    sample: int | None = None

    def sample_of(self, fleet: Fleet) -> int:
        """One of so many contents is looked at: if nobody says, as few of a large fleet that MOST_PAGES are."""
        return self.sample or max(1, -(-fleet.pages // MOST_PAGES))


def plan_for(
    fleet: Fleet, asked: Asked, options: Options, *, seed: int = 0, seconds: float = SECONDS, rounds: int = ROUNDS,
    keep: bool = False,     progress: Progress = no_progress,
) -> Plan:  # fmt: skip
    """A plan that saves more than the present placement. FleetError. With `keep`, Ctrl-C ends the search, and the plan is what it found."""
    need_numpy()
    if asked.hosts is None and asked.capacity is None:
        raise FleetError("the capacities of hosts are needed: --hosts FILE with the columns host and capacity, or --capacity SIZE for all")
    where = "hosts"
    if isinstance(asked.hosts, str):
        where = asked.hosts
        named = read_hosts(where)
    else:
        named = {name: Room(pages, where) for name, pages in (asked.hosts or {}).items()}
    rooms = rooms_of(fleet, named, asked.capacity, where)
    wishes = wishes_of(fleet, asked)
    sample = asked.sample_of(fleet)
    with asking(fleet, options, sample=sample, progress=progress) as question:
        answers = question.ask([queries.HELD, queries.PATTERNS])
    try:
        problem = problem_of(fleet, asked, sample, answers, rooms, wishes)
        check_room(problem, rooms, sample)
        found = place(problem, seed=seed, seconds=seconds, rounds=rounds, keep=keep, progress=progress)
    except PlaceError as wrong:
        raise FleetError(str(wrong)) from None
    progress("bringing the moves into an order", 0, 0)
    steps = ordered(problem, found.at)
    error = 0.0
    if sample > 1:
        shared = [(count[0], len({found.at[source] for source in sources}) - len({problem.start[source] for source in sources}))
                  for (sources,), count in answers["patterns"].items()]
        error = math.sqrt(sample * (sample - 1) * sum(count * change * change for count, change in shared))
    return Plan(
        problem=problem, at=found.at, least=found.least, ended=found.ended, steps=steps, seed=seed, headroom=asked.headroom,
        sample=sample, error=error,
    )  # fmt: skip


def need_numpy() -> None:
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise FleetError("a placement needs numpy: pip install 'ksm[fleet]'") from None


def wishes_of(fleet: Fleet, asked: Asked) -> Wishes:
    """What options and the file of the placement say together."""
    wishes = read_wishes(asked.placement, fleet) if asked.placement is not None else Wishes(set(), [], {})
    pinned = wishes.pinned | set(numbers_of(fleet, asked.pinned, "--pin"))
    return Wishes(pinned, [*wishes.apart, *apart_of(fleet, asked.apart)], wishes.tenants)


def tenant_of(fleet: Fleet, wishes: Wishes, number: int) -> str:
    """The tenant whom --tenant names, or else the file."""
    named = fleet.members[number].tenant
    return wishes.tenants.get(number, NO_TENANT) if named == NO_TENANT else named


def problem_of(
    fleet: Fleet, asked: Asked, sample: int, answers: Answers, rooms: Mapping[str, Room], wishes: Wishes
) -> Problem:
    """Of a sample, contents stand for `sample` of them; pages of zeros are one content, and in each sample. PlaceError."""
    names = {name: number for number, name in enumerate(rooms)}
    distinct = [0] * len(fleet.members)
    zeros = []
    for (number, kind), (_, contents) in answers["held"].items():
        if kind == ZERO:
            zeros.append(number)
        else:
            distinct[number] += contents * sample
    groups = merge_groups((sources, count[0] * sample) for (sources,), count in answers["patterns"].items())
    own = own_of(distinct, groups)
    if len(zeros) == 1:
        own[zeros[0]] += 1
    elif zeros:
        groups = merge_groups([*groups, (zeros, 1)])
    return Problem(
        [Host(name, room.pages, asked.headroom.limit(room.pages)) for name, room in rooms.items()],
        [
            Source(member.name, member.pages, own[member.number], names[member.host], tenant_of(fleet, wishes, member.number),
                   member.number in wishes.pinned)
            for member in fleet.members
        ],
        groups, apart=wishes.apart, tenants_apart=asked.tenants_apart, moves=asked.moves, least=asked.least, fit=asked.fit,
    )  # fmt: skip


def check_room(problem: Problem, rooms: Mapping[str, Room], sample: int) -> None:
    """FleetError if a host has less than its sources take now; of a sample, if that is sure."""
    load = problem.used(problem.start) if problem.fit == "after" else problem.filled(problem.start)
    for host, pages in zip(problem.hosts, load.tolist(), strict=True):
        doubt = 4 * math.sqrt((sample - 1) * pages) if problem.fit == "after" else 0
        if pages - doubt > host.capacity:
            when = "after sharing" if problem.fit == "after" else "before sharing"
            raise FleetError(
                f"{rooms[host.name].said}: {printable(host.name)} has {size(host.capacity * PAGE_SIZE)}, and its sources take"
                f" {size(pages * PAGE_SIZE)} {when} now"
            )
