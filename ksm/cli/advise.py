# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm advise: which mappings of a process are worth it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ksm.cli import options
from ksm.estimate import advise_report
from ksm.estimate.advise import advise as advise_of
from ksm.estimate.replay import APART, Reader
from ksm.estimate.report import terminal_width
from ksm.estimate.terminal import print_lines
from ksm.sources import open_sources

if TYPE_CHECKING:
    from ksm.machine import _Era as Era


@click.command(short_help="Which mappings of a process are worth madvise(), or all by prctl()?")
@click.argument("sources", nargs=-1, required=True, metavar="pid:N...")
@options.era
@options.knobs
@options.settings
@click.option(
    "--interval", type=options.Seconds(0, 86400), default=APART, show_default=True, metavar="SECONDS",
    help="Read the process twice, so far apart: what differs is volatile.",
)
@options.threads
@options.gentle
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def advise(
    sources: tuple[str, ...],
    era: Era,
    knobs: str,
    settings: dict[str, str],
    interval: float,
    threads: int | None,
    gentle: bool,
    as_json: bool,
) -> None:
    """Which mappings of a process are worth madvise(MADV_MERGEABLE), or all of them by prctl(PR_SET_MEMORY_MERGE)?

    The memory is read twice. A machine merges all that could be mergeable, and another one only the mappings that pay: each page that KSM
    looks at costs an rmap_item of 64 bytes, and each page that it merges away gives 4096. The mappings are ranked by what each adds to the
    profit of those with a star. The calls are printed; nothing is called, and nothing is changed in the process.

    Of several processes, the mappings are chosen together: their pages merge with each other.
    """
    for text in sources:
        if not text.startswith("pid:"):
            raise click.UsageError(f"{text}: a process is written as pid:N", click.get_current_context())
    threads = options.threads_of(threads, gentle)
    opening = options.opened_sources(lambda host: open_sources(sources, host), gentle=gentle)
    with opening as (opened, _, _), options.progress_bar() as progress:
        reader = Reader(opened, threads=threads, interval=interval, progress=progress)
        found = advise_of(reader, settings=settings, era=era, progress=progress)
    found.notes.extend(click.get_current_context().meta["era_note"])
    if as_json:
        import json

        click.echo(json.dumps(advise_report.as_json(found), indent=2))
    else:
        print_lines(advise_report.lines(found, terminal_width()))
