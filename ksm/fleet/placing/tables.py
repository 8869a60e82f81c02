# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""CSV files and words of a user: the hosts and their capacities, and which sources are pinned, apart, or a tenant's."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.fleet.files import Fleet, FleetError, finder, rows_of_csv
from ksm.host.text import printable

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(?:([KMGT])(?:iB)?|pages?)?")
PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%")
MOST = 1 << 40  # pages of a host
YES, NO = ("yes", "true", "1", "pinned"), ("", "no", "false", "0")


def pages_of(text: str) -> int:
    """A size in pages: "262144", "262144 pages", "512MiB", "1.5G". A part of a page is none. ValueError."""
    found = SIZE.fullmatch(text)
    if not found or (not found[2] and "." in found[1]):
        raise ValueError(f"{printable(text)!r} is no size: it is written 64GiB, 512MiB, or as a number of pages")
    pages = int(float(found[1]) * UNITS[found[2]] / PAGE_SIZE) if found[2] else int(found[1])
    if pages > MOST:
        raise ValueError(f"{printable(text)!r} is more than any host has")
    return pages


class Headroom(NamedTuple):
    """What is kept free of each host: pages, or a share of its capacity."""

    pages: int = 0
    share: float = 0.0

    def limit(self, capacity: int) -> int:
        return max(0, capacity - max(self.pages, int(self.share * capacity)))


def headroom_of(text: str) -> Headroom:
    """ "10%", or a size. ValueError."""
    if found := PERCENT.fullmatch(text):
        share = float(found[1]) / 100
        if share > 1:
            raise ValueError(f"{text!r} is more than a host has")
        return Headroom(share=share)
    try:
        return Headroom(pages_of(text))
    except ValueError:
        raise ValueError(f"{printable(text)!r} is no headroom: it is written 10%, 4GiB, or as a number of pages") from None


class Room(NamedTuple):
    """The capacity of a host in pages, and where that was said."""

    pages: int
    said: str


def read_hosts(path: str) -> dict[str, Room]:
    """The hosts of a CSV file with the columns host and capacity. FleetError."""
    found: dict[str, Room] = {}
    for line, (host, capacity) in rows_of_csv(path, ("host", "capacity")):
        said = f"{path}:{line}"
        if not host:
            raise FleetError(f"{said}: a host without a name")
        if host in found:
            raise FleetError(f"{said}: {printable(host)} is in {found[host].said} already")
        try:
            found[host] = Room(pages_of(capacity), said)
        except ValueError as error:
            raise FleetError(f"{said}: {error}") from None
    if not found:
        raise FleetError(f"{path}: no host")
    return found


class Wishes(NamedTuple):
    """Numbers of sources that are pinned, and sets of them of which no two may meet. `tenants` has those that a file names."""

    pinned: set[int]
    apart: list[frozenset[int]]
    tenants: dict[int, str]


def read_wishes(path: str, fleet: Fleet) -> Wishes:
    """The columns pinned, apart and tenant of a placement, none of which need be there. In `apart` are names of sets, with ";" between.
    FleetError.
    """
    find = finder(fleet.members)
    pinned: set[int] = set()
    sets: dict[str, set[int]] = {}
    tenants: dict[int, str] = {}
    seen: dict[str, int] = {}
    for line, (source, stays, apart, tenant) in rows_of_csv(path, ("source",), ("pinned", "apart", "tenant")):
        if source in seen:
            raise FleetError(f"{path}:{line}: {printable(source)} is in line {seen[source]} already")
        seen[source] = line
        numbers = [member.number for member in find(source)]
        if stays.lower() not in YES + NO:
            raise FleetError(f"{path}:{line}: pinned is yes or no, and not {printable(stays)!r}")
        if stays.lower() in YES:
            pinned.update(numbers)
        for name in filter(None, map(str.strip, apart.split(";"))):
            sets.setdefault(name, set()).update(numbers)
        if tenant:
            tenants.update(dict.fromkeys(numbers, tenant))
    return Wishes(pinned, [frozenset(members) for members in sets.values() if len(members) > 1], tenants)


def split_names(text: str) -> list[str]:
    """Names divided by commas; one with a comma stands in quotes, as in CSV. ValueError."""
    try:
        [names] = csv.reader(io.StringIO(text), strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):
        raise ValueError(f"{printable(text)!r}: names are divided by commas; one that has a comma stands in quotes") from None
    return [name.strip() for name in names]


def numbers_of(fleet: Fleet, names: Iterable[str], option: str) -> list[int]:
    """The sources of these names or patterns. FleetError."""
    find = finder(fleet.members)
    found: list[int] = []
    for name in names:
        some = find(name)
        if not some:
            raise FleetError(f"{option}: no source {printable(name)!r} in the fleet")
        found += [member.number for member in some if member.number not in found]
    return found


def apart_of(fleet: Fleet, sets: Sequence[Sequence[str]]) -> list[frozenset[int]]:
    """The sets of --apart. FleetError."""
    found = []
    for names in sets:
        numbers = frozenset(numbers_of(fleet, names, "--apart"))
        if len(numbers) < 2:
            raise FleetError(f"--apart {printable(','.join(names))}: two sources at least are needed")
        found.append(numbers)
    return found


def rooms_of(fleet: Fleet, named: Mapping[str, Room], usual: int | None, path: str) -> dict[str, Room]:
    """The hosts of a fleet, and others that a file names. FleetError for one of which no capacity is known."""
    rooms = dict(named)
    for member in fleet.members:
        if member.host not in rooms:
            if usual is None:
                raise FleetError(f"{path}: no host {printable(member.host)!r}, on which {printable(member.name)} is")
            rooms[member.host] = Room(usual, "--capacity")
    return rooms
