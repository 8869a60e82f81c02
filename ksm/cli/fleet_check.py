# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm fleet check: what would KSM do on each host of a placement?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ksm.cli import fleet_options, options
from ksm.estimate.report import terminal_width
from ksm.estimate.scan import Zeros
from ksm.estimate.settings import SettingError
from ksm.estimate.terminal import print_lines
from ksm.fleet.files import open_fleet

if TYPE_CHECKING:
    from ksm.machine import _Era as Era


@click.command(short_help="What would KSM do on each host of a placement?")
@fleet_options.files
@fleet_options.placement
@click.option("--compare", is_flag=True, help="With --placement: also check where the sources are now, as FILES say.")
@options.era
@options.knobs
@options.settings
@options.passes
@options.zeros
@click.option(
    "--memory", metavar="SIZE", callback=fleet_options.bytes_in,
    help="Take so much memory at most, as 4G.  [default: four fifths of what is available]",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), metavar="N", help="Check N hosts side by side.  [default: all processors]")
@click.option("--temp", metavar="DIR", callback=fleet_options.folder_in, help="Put files of addresses there.  [default: $TMPDIR]")
@fleet_options.as_json
def check(
    files: tuple[str, ...],
    placement: str | None,
    compare: bool,
    era: Era,
    knobs: str,
    settings: dict[str, str],
    passes: int | None,
    zeros: Zeros,
    memory: int | None,
    threads: int | None,
    temp: str | None,
    as_json: bool,
) -> None:
    """What would KSM do on each host of a placement?

    FILES are fingerprint files, as for ksm fleet report. For each host a machine of fingerprints merges the pages of its sources, as ksm
    scan of the same sources does. So max_page_sharing counts, and all other settings. Without --placement, the hosts are those of FILES.

    A host needs 160 bytes of memory for each of its pages. As many hosts as fit into --memory are checked side by side.
    """
    from ksm.fleet.checking import check_fleet, placed

    if compare and placement is None:
        raise click.UsageError("--compare is for --placement", click.get_current_context())
    with fleet_options.errors(), options.progress_bar() as progress:
        fleet = open_fleet(files)
        try:
            found = check_fleet(
                fleet, placed(fleet, placement), compare=compare, settings=settings, era=era, passes=passes, zeros=zeros, memory=memory,
                threads=threads, temp=temp, progress=progress,
            )  # fmt: skip
        except SettingError as error:
            raise click.UsageError(str(error), click.get_current_context()) from None
    notes = click.get_current_context().meta["era_note"]
    if as_json:
        value = found.json()
        value["notes"] += notes
        click.echo(json.dumps(value, indent=2))
    else:
        print_lines(found.lines(terminal_width(), notes))
