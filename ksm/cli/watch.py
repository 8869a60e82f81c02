# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm watch: what would KSM save now, and an hour later?"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from ksm.cli import options
from ksm.cli.fingerprint import seconds
from ksm.estimate import watch_report
from ksm.estimate.pace import BUDGET
from ksm.estimate.report import terminal_width
from ksm.estimate.scan import Zeros
from ksm.estimate.terminal import encodable, print_lines
from ksm.estimate.watching import EVERY, LARGEST, Ended, Look, Watcher, read_looks, summary
from ksm.estimate.watching import watch as watching
from ksm.host.files import FileError, read_file
from ksm.host.log import Log
from ksm.host.text import printable
from ksm.sources import SourceError, Which
from ksm.sources.gentle import gently

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

MOST_KEPT = 100_000  # looks that are summed up at the end


@click.command(short_help="What would be saved now, and again every so often? When has it settled?")
@options.sources
@click.option("--every", callback=seconds, metavar="TIME", help=f"Look so often: each 30s, 10m, 2h or 1d.  [default: {EVERY:g}s]")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Look N times.  [default: until Ctrl-C]")
@click.option("--log", "log_file", metavar="FILE", help="Add a line of JSON to this file with each look.")
@click.option("--read", "read_from", metavar="FILE", help="Sum up what --log has written, and look at nothing.")
@options.mappings
@options.era
@options.knobs
@options.settings
@click.option(
    "--budget", type=options.Seconds(0, 30 * 86400), default=BUDGET, metavar="SECONDS",
    help=f"Watch processes so long at most in each look, as ksm scan does.  [default: {BUDGET:g}]",
)
@options.zeros
@options.threads
@options.gentle
@click.option("--json", "as_json", is_flag=True, help="Write lines of JSON; with --read, the summary as JSON.")
def watch(
    sources: tuple[str, ...],
    every: float | None,
    count: int | None,
    log_file: str | None,
    read_from: str | None,
    which: Which | None,
    advised: bool,
    era: Era,
    knobs: str,
    settings: dict[str, str],
    budget: float,
    zeros: Zeros,
    threads: int | None,
    gentle: bool,
    as_json: bool,
) -> None:
    """What would KSM save now, and again every so often?

    A SOURCE is what ksm scan takes; without any, all processes that you may read. Each look opens the sources anew, and prints a line: what
    KSM would free, what has changed since the last look, what the running kernel's KSM has freed, and which sources came and went. When all
    that were named have gone, it ends. Ctrl-C ends it, too, with a summary.

    \b
        ksm watch --every 10m --log ksm.log
        ksm watch --read ksm.log

    The file has whole lines, also when the command is killed. --read says the least, the median and the most, and by hour.
    """
    context = click.get_current_context()
    if read_from is not None:
        if sources or log_file is not None or count is not None or every is not None:
            raise click.UsageError("--read looks at nothing: it goes with --json only", context)
        sum_up(read_from, as_json)
        return
    if every == 0:
        raise click.UsageError("--every 0: some time has to pass between two looks", context)
    if "-" in sources:
        raise click.UsageError("-: standard input can be read once, and not again and again", context)
    mappings = options.which_of(which, advised)
    threads = options.threads_of(threads, gentle)
    context.with_resource(gently(gentle))
    kept: list[Look] = []
    with ExitStack() as stack:
        try:
            log = stack.enter_context(Log(log_file)) if log_file is not None else None
        except FileError as error:
            raise click.ClickException(str(error)) from None
        progress = stack.enter_context(options.progress_bar())
        watcher = Watcher(
            sources, settings=settings, era=era, which=mappings, zeros=zeros, budget=budget, threads=threads, gentle=gentle,
            progress=progress,
        )
        try:
            for look in watching(watcher, every=EVERY if every is None else every, count=count):
                if log is not None:
                    log.add(look.line())
                kept.append(look)
                del kept[:-MOST_KEPT]
                click.echo(look.line() if as_json else encodable(printable(watch_report.line_of(look))))
                sys.stdout.flush()
        except SourceError as error:
            raise click.ClickException(str(error)) from None
        except Ended as end:
            click.echo(printable(f"ksm: {end}"), err=True)
        except KeyboardInterrupt:
            stack.close()
            if len(kept) > 1 and not as_json:
                click.echo()
                print_lines(watch_report.lines(summary(kept), terminal_width()))
            raise


def sum_up(path: str, as_json: bool) -> None:
    try:
        found = summary(read_looks(read_file(path, LARGEST), path))
    except FileError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(watch_report.as_json(found), indent=2))
    else:
        print_lines(watch_report.lines(found, terminal_width()))
