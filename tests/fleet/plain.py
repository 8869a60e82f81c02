# SPDX-License-Identifier: GPL-2.0-only
"""Plain counts over a made fleet, with sets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations

from made import Machine


def having(machines: Sequence[Machine]) -> dict[int, set[int]]:
    """For each contents that is not zero, the numbers of the machines that have it."""
    found = defaultdict(set)
    for number, machine in enumerate(machines):
        for content in machine.contents:
            if content:
                found[content].add(number)
    return found


def pairs_of(machines: Sequence[Machine]) -> Counter[tuple[int, int]]:
    """How many contents each two machines have in common."""
    own = [set(machine.contents) - {0} for machine in machines]
    every = {(a, b): len(own[a] & own[b]) for a, b in combinations(range(len(machines)), 2)}
    return Counter({pair: common for pair, common in every.items() if common})


def ledger_of(machines: Sequence[Machine], counts: Callable[[int], bool] = bool) -> dict[str, int]:
    """The ledger of the pages with contents that count."""
    contents = {content: numbers for content, numbers in having(machines).items() if counts(content)}
    pages = sum(counts(content) for machine in machines for content in machine.contents if content)
    held = sum(map(len, contents.values()))
    on_hosts = sum(len({machines[number].host for number in numbers}) for numbers in contents.values())
    return {"within": pages - held, "same_host": held - on_hosts, "across_hosts": on_hosts - len(contents), "kept": len(contents)}


def saved(machines: Sequence[Machine]) -> int:
    """What merging across these machines saves on one host, in pages."""
    return sum(len(numbers) - 1 for numbers in having(machines).values())
