# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm fleet report: what is shared within sources, on hosts and across hosts?"""

from __future__ import annotations

import json

import click

from ksm.cli import fleet_options, options
from ksm.estimate.report import terminal_width
from ksm.estimate.terminal import print_lines
from ksm.fleet.files import open_fleet
from ksm.fleet.sharing import ALIKE, make_report
from ksm.fleet.sharing_text import as_json as json_of
from ksm.fleet.sharing_text import lines


@click.command(short_help="What is shared within sources, on hosts and across hosts?")
@fleet_options.files
@fleet_options.placement
@fleet_options.tenants
@fleet_options.sample
@click.option(
    "--alike", type=click.FloatRange(0, 100), default=100 * ALIKE, metavar="PERCENT", show_default=True,
    help="Two sources belong to one group if they have so much in common: 2 * common / (a + b), of a and b contents.",
)
@fleet_options.engines
@options.page
@fleet_options.as_json
def report(
    files: tuple[str, ...],
    placement: str | None,
    tenants: dict[str, list[str]],
    sample: int,
    alike: float,
    engine: str,
    scheduler: str | None,
    memory: int | None,
    threads: int | None,
    temp: str | None,
    html: str | None,
    as_json: bool,
) -> None:
    """What is shared within sources, on hosts and across hosts? By whom, and by which tenants?

    FILES are fingerprint files: files, folders whose *.parquet are taken, patterns, or addresses for fsspec (s3://bucket/folder).

    A source is named HOST:SOURCE. Each page is in one line of the ledger: pages of zeros; duplicates within their source, across sources
    of their host, and across hosts; and one page that is kept for each contents.

    All figures are exact. With --sample, pairs and groups are found by one of N contents, and have an error. With --tenant, sources that no
    --tenant names are those of "no tenant".
    """
    asked = fleet_options.options_of(engine, scheduler, memory, threads, temp)
    with fleet_options.errors(), options.progress_bar() as progress:
        fleet = open_fleet(files, placement=placement, tenants=tenants)
        found = make_report(fleet, asked, sample=sample, least=alike / 100, progress=progress)
    if html is not None:
        options.write_page(html, found)
    if as_json:
        click.echo(json.dumps(json_of(found), indent=2))
    else:
        print_lines(lines(found, terminal_width()))
