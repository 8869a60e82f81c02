# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what commands print, as objects.
"""ksm.fleet.place() and ksm.fleet.check(). What is wrong is a ValueError, an OSError or an ImportError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from ksm.estimate.answers import refusals as setting_refusals
from ksm.estimate.answers import texts_of
from ksm.estimate.arguments import check_arguments
from ksm.fleet.answers import LEAST_MEMORY, checked, options_of, refusals
from ksm.fleet.checking import check_fleet, placed
from ksm.fleet.checks import Check
from ksm.fleet.files import open_fleet
from ksm.fleet.placing.tables import headroom_of, pages_of
from ksm.machine import parse_size

if TYPE_CHECKING:
    from ksm.estimate.scan import Zeros
    from ksm.fleet.placing.plan import Plan
    from ksm.machine import _Era as Era


def size_in(value: str | int) -> int:
    """A size in pages. ValueError."""
    return pages_of(str(value))


def place_of(
    files: Sequence[str], *, hosts: str | Mapping[str, str | int] | None, capacity: str | int | None, placement: str | None,
    headroom: str | int, fit: str, apart: Sequence[Sequence[str]], pinned: Sequence[str],
    tenants: Mapping[str, Sequence[str]] | None, tenants_apart: bool, moves: int | None, least: str | int, seconds: float, seed: int,
    sample: int | None, engine: str, scheduler: str | None, memory: str | int | None, threads: int | None, temp: str | None,
) -> Plan:  # fmt: skip
    """See ksm.fleet.place()."""
    try:
        from ksm.fleet.placing.problem import Fit
        from ksm.fleet.placing.question import Asked, plan_for
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise ImportError("a placement needs numpy: pip install 'ksm[fleet]'") from None
    if fit not in get_args(Fit):
        raise ValueError(f"fit is one of {', '.join(get_args(Fit))}, not {fit!r}")
    for name, number in (("moves", moves), ("seed", seed)):
        if number is not None and number < 0:
            raise ValueError(f"{name} is 0 at least, not {number}")
    if not 0 <= seconds <= 7 * 86400:
        raise ValueError(f"seconds are 0 to {7 * 86400}, not {seconds}")
    if isinstance(apart, str) or any(isinstance(each, str) for each in apart):
        raise TypeError("apart is a sequence of sequences of names")
    if hosts is None and capacity is None:
        raise ValueError("the capacities of hosts are needed: hosts or capacity")
    asked = Asked(
        hosts={name: size_in(value) for name, value in hosts.items()} if isinstance(hosts, Mapping) else hosts,
        capacity=None if capacity is None else size_in(capacity), placement=placement, headroom=headroom_of(str(headroom)),
        fit=fit,  # type: ignore[arg-type]  # it was checked above
        apart=apart, pinned=pinned, tenants_apart=tenants_apart, moves=moves, least=size_in(least),
        sample=None if sample is None else checked(sample),
    )  # fmt: skip
    options = options_of(engine, scheduler, memory, threads, temp)
    with refusals():
        return plan_for(open_fleet(files, placement=placement, tenants=tenants), asked, options, seed=seed, seconds=seconds)


def check_of(
    files: Sequence[str], *, placement: str | None, compare: bool, settings: Mapping[str, str | int], era: Era, passes: int | None,
    zeros: Zeros, memory: str | int | None, threads: int | None, temp: str | None,
) -> Check:  # fmt: skip
    """See ksm.fleet.check()."""
    check_arguments(files, era=era, zeros=zeros, threads=threads, passes=passes)
    size = None if memory is None else parse_size(memory)
    if size is not None and size < LEAST_MEMORY:
        raise ValueError(f"memory is at least {LEAST_MEMORY >> 20}M")
    if compare and placement is None:
        raise ValueError("compare is for a placement")
    with refusals(), setting_refusals():
        fleet = open_fleet(files)
        return check_fleet(
            fleet, placed(fleet, placement), compare=compare, settings=texts_of(settings), era=era, passes=passes, zeros=zeros, memory=size,
            threads=threads, temp=temp,
        )  # fmt: skip
