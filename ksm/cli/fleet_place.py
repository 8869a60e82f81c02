# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm fleet place: who should live with whom?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ksm.cli import fleet_options, options
from ksm.estimate.report import terminal_width
from ksm.estimate.terminal import print_lines
from ksm.fleet.files import open_fleet
from ksm.fleet.placing import SECONDS
from ksm.fleet.placing.tables import Headroom, headroom_of, pages_of, split_names
from ksm.host.files import write_whole

Value = TypeVar("Value")


def read_by(read: Callable[[str], Value]) -> Callable[[click.Context, click.Parameter, str | None], Value | None]:
    """A callback for an option whose value is read so; a ValueError is wrong usage."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Value | None:
        try:
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def sample_in(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """What --sample says, or None."""
    return None if value is None else fleet_options.sample_in(ctx, param, value)


def sets_in(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[list[str]]:
    """What --apart says."""
    try:
        return [split_names(value) for value in values]
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command(short_help="Which source should live on which host, so that KSM saves most?")
@fleet_options.files
@click.option("--hosts", metavar="CSV", help="A file with the columns host and capacity: 64GiB, 512MiB, or a number of pages.")
@click.option("--capacity", metavar="SIZE", callback=read_by(pages_of), help="The capacity of each host that --hosts does not name.")
@fleet_options.placement
@click.option(
    "--headroom", metavar="SIZE|N%", default="10%", show_default=True, callback=read_by(headroom_of),
    help="Keep so much of each capacity free.",
)
@click.option(
    "--fit", type=click.Choice(["after", "before"]), default="after", show_default=True,
    help="What must fit into a capacity: memory after sharing, or all pages before.",
)
@click.option("--apart", multiple=True, metavar="SOURCE,...", callback=sets_in, help="No two of these SOURCEs may meet on a host.")
@click.option("--pin", "pinned", multiple=True, metavar="SOURCE", help="This SOURCE stays where it is.")
@fleet_options.tenants
@click.option("--tenants-apart", is_flag=True, help="A host has sources of one tenant only; those that have none are one, too.")
@click.option("--moves", type=click.IntRange(0, 1 << 31), metavar="K", help="Make K moves at most.  [default: any number]")
@click.option(
    "--least", metavar="SIZE", default="0", show_default=True, callback=read_by(pages_of),
    help="A move has to be worth SIZE: the search counts that for each.",
)
@click.option(
    "--seconds", type=options.Seconds(0, 7 * 86400), default=SECONDS, show_default=True, metavar="S", help="Search for so long at most."
)
@click.option("--seed", type=click.IntRange(0, (1 << 32) - 1), default=0, show_default=True, metavar="N", help="Search in another order.")
@click.option(
    "--sample", metavar="1/N", callback=sample_in, help="Look at one of N contents.  [default: all, of a large fleet 20 million pages]"
)
@fleet_options.engines
@click.option("-o", "output", metavar="CSV", help="Write the new placement into this file, which --placement takes.")
@options.page
@fleet_options.as_json
def place(
    files: tuple[str, ...],
    hosts: str | None,
    capacity: int | None,
    placement: str | None,
    headroom: Headroom,
    fit: Any,
    apart: list[list[str]],
    pinned: tuple[str, ...],
    tenants: dict[str, list[str]],
    tenants_apart: bool,
    moves: int | None,
    least: int,
    seconds: float,
    seed: int,
    sample: int | None,
    engine: str,
    scheduler: str | None,
    memory: int | None,
    threads: int | None,
    temp: str | None,
    output: str | None,
    html: str | None,
    as_json: bool,
) -> None:
    """Which source should live on which host, so that KSM saves most?

    FILES are fingerprint files, as for ksm fleet report. Each says on which host its sources are now, or --placement does.

    A host's memory is one page for each contents that its sources have. The search looks for the placement in which all hosts together
    have the fewest pages, within their capacities. The moves that lead there are in an order in which they can be made, with what each of
    them saves; and the last lines say how much no placement can exceed. The same seed gives the same placement, unless the time is over
    first.

    The file of --placement may have more columns: pinned (yes or no), tenant, and apart, with the names of sets (divided by ";") of which
    no two sources may meet. A SOURCE is HOST:SOURCE, SOURCE, or a pattern of either; one with a comma stands in quotes.

    Ctrl-C ends the search, and prints what it has found. ksm fleet check says what KSM itself would do on these hosts.
    """
    from ksm.fleet.placing.question import Asked, need_numpy, plan_for  # numpy is there where it is needed

    how = fleet_options.options_of(engine, scheduler, memory, threads, temp)
    if hosts is None and capacity is None:
        raise click.UsageError("the capacities of hosts are needed: --hosts CSV, or --capacity SIZE", click.get_current_context())
    asked = Asked(
        hosts=hosts, capacity=capacity, placement=placement, headroom=headroom, fit=fit, apart=apart, pinned=pinned,
        tenants_apart=tenants_apart, moves=moves, least=least, sample=sample,
    )  # fmt: skip
    with fleet_options.errors(), options.progress_bar() as progress:
        need_numpy()
        fleet = open_fleet(files, placement=placement, tenants=tenants)
        plan = plan_for(fleet, asked, how, seed=seed, seconds=seconds, keep=True, progress=progress)
    if html is not None:
        options.write_page(html, plan)
    if output is not None:
        try:
            write_whole(output, plan.csv())
        except OSError as error:
            raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from None
    if as_json:
        click.echo(json.dumps(plan.json(), indent=2))
    else:
        print_lines(plan.lines(terminal_width()))
    if plan.ended == "interrupted":
        raise KeyboardInterrupt
