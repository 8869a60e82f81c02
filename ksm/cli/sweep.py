# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm sweep: which knobs?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ksm.cli import options
from ksm.estimate import sweep_report
from ksm.estimate.replay import APART, Reader
from ksm.estimate.report import terminal_width
from ksm.estimate.scan import Zeros
from ksm.estimate.settings import SettingError
from ksm.estimate.sweep import Sweep, Sweeper, settings_of
from ksm.estimate.terminal import print_lines
from ksm.sources import Which, open_sources
from ksm.sources.advice import of_which

if TYPE_CHECKING:
    from ksm.machine import _Era as Era
    from ksm.sources.input import Holes

COST = options.Seconds(1, 1e9)  # nanoseconds


def varied(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, list[str]]:
    """What --vary says: the values of each knob."""
    result: dict[str, list[str]] = {}
    for value in values:
        name, equals, some = value.partition("=")
        given = [one.strip() for one in some.split(",")]
        if not equals or not name or not all(given):
            raise click.BadParameter(f"{value}: it is written KNOB=VALUE,VALUE,...", ctx, param)
        if name in result:
            raise click.BadParameter(f"{name} is given twice: write {name}={','.join([*result[name], *given])}", ctx, param)
        result[name] = list(dict.fromkeys(given))
    return result


@click.command(short_help="Which knobs? What does ksmd cost, and when has it settled?")
@options.sources
@click.option(
    "--vary", multiple=True, metavar="KNOB=VALUE,...", callback=varied,
    help="Try these values of a file of /sys/kernel/mm/ksm, or of era. Of several knobs, all combinations.  [default: some usual ones]",
)
@click.option(
    "--rules/--no-rules", default=True, help="Also try the defaults, the kernel's advisor, and what ksmtuned does.  [default: do so]"
)
@click.option(
    "--cost", type=COST, metavar="NS", help="Nanoseconds of a processor that ksmd takes for a page.  [default: measured here, by the port]"
)
@options.mappings
@options.era
@options.knobs
@click.option(
    "--set", "base", multiple=True, metavar="KNOB=VALUE", callback=options.settings_in,
    help="Write a file of /sys/kernel/mm/ksm, for all rows.",
)
@click.option(
    "--interval", type=options.Seconds(0, 86400), default=APART, show_default=True, metavar="SECONDS",
    help="Read processes twice, so far apart: what differs is volatile.",
)
@options.holes
@options.zeros
@options.key
@options.threads
@options.gentle
@options.page
@click.option("--json", "as_json", is_flag=True, help="Write the table as JSON.")
def sweep(
    sources: tuple[str, ...],
    vary: dict[str, list[str]],
    rules: bool,
    cost: float | None,
    which: Which | None,
    advised: bool,
    era: Era,
    knobs: str,
    base: dict[str, str],
    interval: float,
    holes: Holes | None,
    zeros: Zeros,
    key_file: str | None,
    threads: int | None,
    gentle: bool,
    html: str | None,
    as_json: bool,
) -> None:
    """Which knobs? What does ksmd cost, and when has it settled?

    A SOURCE is what ksm scan takes: pid:N for a running process, or a file of memory. Without any, all processes that you may read.

    The memory is read once, processes twice. Then a machine for each setting merges it, several at the same time, on clocks that go as ksmd
    would: 100 pages every 20 ms are 5,000 a second. Each row says what is saved, after how long and how many passes nothing changes any
    more, which share of a processor ksmd takes from then on, and what is left after KSM's own structures. "of all" compares with a perfect
    deduplication: of all equal pages one is kept, and none of zeros. The best rows have a star, and a sentence why.

    \b
        ksm sweep vm1.img vm2.img --vary pages_to_scan=100,1000 --vary use_zero_pages=0,1

    The rows of ksmtuned have the defaults of its /etc/ksmtuned.conf: with memory short all the time, and never. Ctrl-C prints the rows that
    are done. Nothing is changed in the processes, the files and the kernel.
    """
    context = click.get_current_context()
    try:
        rows, remarks = settings_of(vary, base, era, rules=rules)
    except SettingError as error:
        raise click.UsageError(f"--vary: {error}" if vary else str(error), context) from None
    mappings = options.which_of(which, advised)
    key = None if key_file is None else options.key_in(key_file)
    threads = options.threads_of(threads, gentle)
    with options.opened_sources(
        lambda host: open_sources(sources, host, which=mappings, holes=holes), gentle=gentle
    ) as (opened, others, _), options.progress_bar() as progress:
        reader = Reader(opened, key=key, threads=threads, zeros=zeros, interval=interval, progress=progress)
        progress("measuring what a page costs", 0, 0)
        sweeper = Sweeper(reader, rows, cost=cost, threads=threads)
        try:
            found = sweeper.run(progress)
        except KeyboardInterrupt:
            found = sweeper.sweep()
    found.notes[:0] = [*of_which(opened, mappings), *remarks]
    found.notes.extend([*others, *context.meta["era_note"]])
    if html is not None:
        options.write_page(html, found)
    show(found, as_json)
    if len(found.rows) < found.asked:
        raise KeyboardInterrupt


def show(found: Sweep, as_json: bool) -> None:
    if as_json:
        import json

        click.echo(json.dumps(sweep_report.as_json(found), indent=2))
    else:
        print_lines(sweep_report.lines(found, terminal_width()))
