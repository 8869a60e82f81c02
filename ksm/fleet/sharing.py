# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""What a fleet shares: within sources, on hosts, across hosts, and across tenants; which sources share most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ksm.fingerprint.classes import CLASSES
from ksm.fleet import queries
from ksm.fleet.asking import Asking, asking
from ksm.fleet.clusters import MOST_JOINED, Blocks, blocks, by_likeness, clusters, rows_of
from ksm.fleet.engines.steps import Options, Progress
from ksm.fleet.files import Fleet
from ksm.fleet.ledger import FleetLedger, ledger
from ksm.fleet.sample import Estimate, estimate

ZERO = CLASSES.index("zero")
MOST = 20  # pairs that are listed
MOST_BLOCKS = 48  # of sources, in a picture
ALIKE = 0.25  # the sources of a group are as alike, or more so


class Shared(NamedTuple):
    """What a source or a host has, in pages. `contents` are its contents other than zeros, `common` those of them that another source, or
    another host, has, too.
    """

    name: str
    host: str
    tenant: str
    pages: int
    zero: int
    contents: int
    common: int

    @property
    def within(self) -> int:
        return self.pages - self.zero - self.contents


class Host(NamedTuple):
    """A host: its sources, and the ledger of its pages, whose `kept` are contents that are there."""

    name: str
    sources: int
    ledger: FleetLedger


class Pair(NamedTuple):
    """Two sources, by their numbers, and how many contents both have. `alike` is 2 * contents / (a + b), of a and b contents."""

    a: int
    b: int
    contents: Estimate
    alike: float


class Group(NamedTuple):
    """Sources that are alike, by their numbers. In pages: what merging across them saves if all live on one host, and where they live."""

    members: list[int]
    hosts: int
    together: int
    now: int

    @property
    def gain(self) -> int:
        return self.together - self.now


class Class(NamedTuple):
    """Contents of a class, and the ledger of their pages."""

    name: str
    ledger: FleetLedger


class TenantClass(NamedTuple):
    """Contents of a class that several tenants have; pages with them, also of each tenant."""

    name: str
    contents: int
    pages: int
    tenants: list[int]


class Owner(NamedTuple):
    """A tenant: his sources and pages, and those of his pages whose contents another tenant has, too."""

    name: str
    sources: int
    pages: int
    common: int


class FleetTenants(NamedTuple):
    """What tenants share. `cost` are the pages that merging across tenants saves where all live, and so what it would cost to forbid it."""

    tenants: list[Owner]
    classes: list[TenantClass]
    cost: int


class FleetReport(NamedTuple):
    """What a fleet shares. Pairs and groups are those that share most; `alike` says how alike the sources of a group are."""

    fleet: Fleet
    ledger: FleetLedger
    classes: list[Class]
    sources: list[Shared]
    hosts: list[Host]
    pairs: list[Pair]
    groups: list[Group]
    alike: float
    sample: int
    blocks: Blocks
    tenants: FleetTenants | None


def make_report(fleet: Fleet, options: Options, *, sample: int = 1, least: float = ALIKE, progress: Progress) -> FleetReport:
    """Ask the fleet. Pairs and groups are found with one of `sample` contents; all else is exact. FleetError."""
    count = len(fleet.members)
    with asking(fleet, options, progress=progress) as asked:
        wanted = [queries.HELD, queries.COMMON, queries.MET, queries.HOSTS, queries.pairs(count, sample)]
        if fleet.has_tenants:
            wanted += [queries.TENANTS, queries.OWNERS, queries.TOGETHER]
        answers = asked.ask(wanted, narrow=True)
        held, common = answers["held"], answers["common"]
        contents = [0] * count
        for (number, kind), (_, some) in held.items():
            contents[number] += some if kind != ZERO else 0
        ranked = by_likeness(answers["pairs"], contents, sample)
        found = clusters(len(contents), rows_of(ranked.slice(0, MOST_JOINED)), least)
        groups = groups_of(asked, found.groups)
    totals = Totals(fleet, held, common, answers["met"], answers["hosts"])
    best = ranked.sort_by([("contents", "descending"), ("a", "ascending"), ("b", "ascending")]).slice(0, MOST)
    pairs = [Pair(row["a"], row["b"], estimate(row["contents"], sample), row["alike"]) for row in best.to_pylist()]
    return FleetReport(
        fleet, totals.whole(), totals.classes(), totals.sources(), totals.hosts(), pairs, groups, least, sample,
        blocks(found.order, ranked, MOST_BLOCKS), tenants_of(fleet, answers) if fleet.has_tenants else None,
    )  # fmt: skip


def groups_of(asked: Asking, groups: Sequence[list[int]]) -> list[Group]:
    """The groups with what they save, that which would gain most first."""
    if not groups:
        return []
    numbers = {source: place for place, group in enumerate(groups) for source in group}
    found = asked.ask([queries.GROUPS], numbers)["groups"]
    members = asked.fleet.members
    result = []
    for place, group in enumerate(groups):
        together, now = found.get((place,), (0, 0))
        result.append(Group(group, len({members[source].host for source in group}), together, now))
    return sorted(result, key=lambda group: (-group.gain, group.members))


class Totals:
    """The sums of the report, from what the queries say of each source, class and host."""

    def __init__(self, fleet: Fleet, held: Any, common: Any, met: Any, hosts: Any) -> None:
        self.fleet, self.held, self.common = fleet, held, common
        self.numbers = {name: place for place, name in enumerate(fleet.hosts)}
        self.of_host: Counter[tuple[int, int]] = Counter()  # contents of each host, and class
        self.of_all: Counter[int] = Counter()  # contents of each class
        for (number, kind), (_, some) in held.items():
            if kind != ZERO:
                alone = some - common.get((number, kind), (0, 0))[1]
                self.of_host[self.numbers[fleet.members[number].host], kind] += alone
                self.of_all[kind] += alone
        for (host, kind), (some,) in hosts.items():
            self.of_host[host, kind] += some
        for (kind,), (some,) in met.items():
            self.of_all[kind] += some

    def classes(self) -> list[Class]:
        pages: Counter[int] = Counter()
        of_sources: Counter[int] = Counter()
        for (_, kind), (some, contents) in self.held.items():
            pages[kind] += some
            of_sources[kind] += contents
        result = [Class(CLASSES[ZERO], FleetLedger(zero=pages[ZERO]))]
        for kind, name in enumerate(CLASSES):
            if kind != ZERO:
                of_hosts = sum(some for (_, each), some in self.of_host.items() if each == kind)
                result.append(Class(name, ledger(pages[kind], 0, of_sources[kind], of_hosts, self.of_all[kind])))
        return result

    def whole(self) -> FleetLedger:
        return FleetLedger(*(sum(column) for column in zip(*(each.ledger for each in self.classes()), strict=True)))

    def sources(self) -> list[Shared]:
        result = []
        for number, member in enumerate(self.fleet.members):
            own = [(kind, *self.held.get((number, kind), (0, 0))) for kind in range(len(CLASSES))]
            result.append(Shared(
                member.name, member.host, member.tenant, member.pages, own[ZERO][1],
                sum(contents for kind, _, contents in own if kind != ZERO),
                sum(self.common.get((number, kind), (0, 0))[1] for kind in range(len(CLASSES))),
            ))  # fmt: skip
        return result

    def hosts(self) -> list[Host]:
        sums = {name: [0, 0, 0, 0] for name in self.numbers}
        for source in self.sources():
            for place, value in enumerate((1, source.pages, source.zero, source.contents)):
                sums[source.host][place] += value
        result = []
        for name, (sources, pages, zero, of_sources) in sums.items():
            of_host = sum(some for (host, _), some in self.of_host.items() if host == self.numbers[name])
            result.append(Host(name, sources, ledger(pages, zero, of_sources, of_host, of_host)))
        return result


def tenants_of(fleet: Fleet, answers: Any) -> FleetTenants:
    names = fleet.tenants
    common: Counter[int] = Counter()
    for (tenant, _), (pages,) in answers["owners"].items():
        common[tenant] += pages
    owners = []
    for place, name in enumerate(names):
        own = [member.pages for member in fleet.members if member.tenant == name]
        owners.append(Owner(name, len(own), sum(own), common[place]))
    classes = []
    for kind, label in enumerate(CLASSES):
        contents, pages = answers["tenants"].get((kind,), (0, 0))
        if contents:
            each = [answers["owners"].get((place, kind), (0,))[0] for place in range(len(names))]
            classes.append(TenantClass(label, contents, pages, each))
    return FleetTenants(owners, classes, sum(saved for saved, in answers["together"].values()))
