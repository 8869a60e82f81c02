# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm bench: how fast is it here?"""

from __future__ import annotations

import json
import signal
import sys

import click
from rich.console import Console

from ksm.bench.contents import WORKLOADS
from ksm.bench.run import about, measure, table
from ksm.bench.ways import KSMD, PORT, PYTHON, missing
from ksm.host.memory import available_memory
from ksm.oracle.kernel import unavailable
from ksm.oracle.workload import OracleError

WAYS = (*PORT, KSMD, *PYTHON)
GIVEN = (*PORT, KSMD, "read once")  # by default: the others take long, and more memory
NEEDED = 5120  # bytes a page, with what the ways keep of it; numpy.unique and the dict of bytes take twice that


@click.command(short_help="How fast is it here, beside the kernel's?")
@click.option("--pages", "sizes", multiple=True, type=click.IntRange(256, 1 << 26), help="Pages of memory.  [default: 16384; repeatable]")
@click.option("--workload", "names", multiple=True, type=click.Choice(list(WORKLOADS)), help="Only this one.  [default: all]")
@click.option("--way", "ways", multiple=True, type=click.Choice(WAYS), help=f"Only this one.  [default: {'; '.join(GIVEN)}]")
@click.option("--all", "every", is_flag=True, help="All ways, also those in Python.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def bench(sizes: tuple[int, ...], names: tuple[str, ...], ways: tuple[str, ...], every: bool, repeat: int, as_json: bool) -> None:
    """How fast is it here, beside the kernel's?

    Passes 1 to 3 over generated memory, a write to every merged page of one half, and run=2: in nanoseconds of processor time a page. `ksm`
    does not read a page again that was not written; for `ksm, written` every page counts as written; `ksm, plain` does as the kernel does,
    step by step. `ksmd` is the running kernel's, over a process with the same memory, for root: its settings are put back. The ways in
    Python go through the memory once: their time stands under "1 to 3".
    """
    asked = list(dict.fromkeys(ways or (WAYS if every else GIVEN)))
    reasons = {way: unavailable() if way == KSMD else missing(way) for way in asked}
    for way, reason in reasons.items():
        if reason and way in ways:
            raise click.ClickException(f"{way}: {reason}")
        if reason:
            click.echo(f"ksm: left out {way}: {reason}", err=True)
    here = [way for way in asked if not reasons[way]]
    sizes = sizes or (16384,)
    if (needed := max(sizes) * NEEDED) > available_memory():
        raise click.ClickException(f"{max(sizes):,} pages need {needed >> 20:,} MiB, and {available_memory() >> 20:,} are available")
    # SIGTERM ends this by an exception, so that the kernel's settings are put back.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = []
    console = Console()
    waiting = Console(stderr=True)
    try:
        with waiting.status("") if waiting.is_terminal else open("/dev/null", "w") as status:
            for found in measure(names or list(WORKLOADS), sizes, here, repeat, getattr(status, "update", status_ignored)):
                results.append(found)
                if not as_json:
                    console.print(table(found))
    except OracleError as error:
        raise click.ClickException(f"ksmd: {error}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        click.echo(json.dumps({**about(), "repeat": repeat, "results": results}, indent=2))


def status_ignored(what: str) -> None:
    pass
