# SPDX-License-Identifier: GPL-2.0-only
"""Problems of placement: made ones whose best is known, and small ones whose best is found by trying all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np

from ksm.fleet.placing.problem import Fit, Host, Numbers, Problem, Source

MIB = 256  # pages
SIZES = (8, 8, 16, 16, 32, 32, 48, 48, 64, 64)  # MiB of the machines on each host


def planted(hosts: int = 40, images: int = 12, seed: int = 1, fit: Fit = "before", **options: object) -> tuple[Problem, Numbers]:
    """A fleet, and its best placement: machines of an image alone on their hosts, which they fill. Now machines of one size are permuted.

    A machine has 4 MiB of its image, 1 MiB that all machines have, half a MiB that its image and the next one have, and the rest to itself.
    """
    chance = random.Random(seed)
    image_of = sorted(number % images for number in range(hosts))
    best, sizes, kinds = [], [], []
    for host, image in enumerate(image_of):
        for size in SIZES:
            best.append(host)
            sizes.append(size * MIB)
            kinds.append(image)
    start = [*best]
    for size in set(sizes):
        same = [source for source, each in enumerate(sizes) if each == size]
        for source, other in zip(same, chance.sample(same, len(same)), strict=True):
            start[source] = best[other]
    groups: dict[tuple[int, ...], int] = {tuple(range(len(sizes))): MIB}
    for image in range(images):
        of = [tuple(source for source, kind in enumerate(kinds) if kind in those) for those in ([image], [image, (image + 1) % images])]
        groups[of[0]], groups[of[1]] = 4 * MIB, MIB // 2
    shared = [0] * len(sizes)
    for owners, count in groups.items():
        for source in owners:
            shared[source] += count
    room = sum(SIZES) * MIB
    problem = Problem(
        [Host(f"host{number}", room, room) for number in range(hosts)],
        [Source(f"vm{number}", sizes[number], sizes[number] - shared[number], start[number]) for number in range(len(sizes))],
        [*groups.items()], fit=fit, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    return problem, np.array(best)


def small(seed: int, fit: Fit = "after", *, sources: int = 6, hosts: int = 3, roomy: bool = False) -> Problem:
    """A random problem that can be tried out: five or six sources with contents in common on two or three hosts, and what must not be."""
    chance = random.Random(seed)
    hosts, sources = chance.randint(2, hosts), chance.randint(2, sources)
    groups: dict[tuple[int, ...], int] = {}
    for _ in range(chance.randint(1, 7)):
        those = tuple(sorted(chance.sample(range(sources), chance.randint(2, sources))))
        groups[those] = groups.get(those, 0) + chance.randint(1, 30)
    own = [chance.randint(0, 20) for _ in range(sources)]
    start = [chance.randrange(hosts) for _ in range(sources)]
    pages = [own[source] + sum(count for those, count in groups.items() if source in those) + chance.randint(0, 10)
             for source in range(sources)]
    tenants = [chance.choice(["blue", "red", None]) for _ in range(sources)]
    pinned = [chance.random() < 0.1 for _ in range(sources)]
    each = [Source(f"s{number}", pages[number], own[number], start[number], tenants[number], pinned[number]) for number in range(sources)]
    plain = Problem([Host(f"h{number}", 0, 0) for number in range(hosts)], each, [*groups.items()], fit=fit)
    now = plain.used(plain.start) if fit == "after" else plain.filled(plain.start)
    room = [int(load * (2 if roomy else chance.uniform(0.8, 1.6))) for load in now + 1]
    return Problem(
        [Host(f"h{number}", max(room[number], int(now[number])), room[number]) for number in range(hosts)], each, [*groups.items()],
        apart=[frozenset(chance.sample(range(sources), 2))] if chance.random() < 0.4 else [],
        tenants_apart=chance.random() < 0.2, moves=chance.choice([None, None, 1, 2, 3]), fit=fit,
    )  # fmt: skip


def best_by_trying(problem: Problem) -> int | None:
    """What all hosts take at least, by trying all placements; None if none is as asked for."""
    hosts = range(len(problem.hosts))
    found: int | None = None
    for each in itertools.product(hosts, repeat=len(problem.sources)):
        taken = plain_total(problem, each)
        if (found is None or taken < found) and plain_faults(problem, each) == 0:
            found = taken
    return found


def contents_on(problem: Problem, at: Sequence[int], host: int) -> int:
    """Distinct contents on a host, with sets in place of arrays."""
    there = {source for source, each in enumerate(at) if each == host}
    return sum(problem.sources[source].own for source in there) + sum(count for those, count in problem.groups if there & set(those))


def plain_total(problem: Problem, at: Sequence[int]) -> int:
    return sum(contents_on(problem, at, host) for host in range(len(problem.hosts)))


def plain_faults(problem: Problem, at: Sequence[int]) -> int:
    """How many of the things that were asked for are not so."""
    faults = 0
    for host, each in enumerate(problem.hosts):
        def load(placed: Sequence[int], host: int = host) -> int:
            if problem.fit == "after":
                return contents_on(problem, placed, host)
            return sum(source.pages for source, where in zip(problem.sources, placed, strict=True) if where == host)

        faults += load(at) > max(each.limit, load([source.host for source in problem.sources]))
        there = {source for source, where in enumerate(at) if where == host}
        faults += any(len(clique & there) > 1 for clique in problem.apart)
        faults += problem.tenants_apart and len({problem.sources[source].tenant for source in there}) > 1
    moved = [source for source, where in zip(problem.sources, at, strict=True) if where != source.host]
    return faults + sum(source.pinned for source in moved) + (problem.moves is not None and len(moved) > problem.moves)
