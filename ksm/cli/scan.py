# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm scan: what would KSM save here?"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ksm.cli import options
from ksm.estimate import report
from ksm.estimate import scan as scanner
from ksm.estimate.next_step import next_command
from ksm.sources import Host, Source, Which, open_sources
from ksm.sources.advice import of_which

if TYPE_CHECKING:
    from ksm.machine import _Era as Era
    from ksm.sources.input import Holes


def tenants_in(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, list[str]]:
    """What --tenant says: the sources of each tenant, by his name."""
    result: dict[str, list[str]] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        # A file may have a comma in its name.
        texts = [rest] if os.path.exists(rest) else rest.split(",")
        if not name or not equals or not all(texts):
            raise click.BadParameter(f"{value}: it is written NAME=SOURCE,SOURCE,...", ctx, param)
        if name == "no tenant":
            raise click.BadParameter(f"{value}: {name} is the name of all other sources", ctx, param)
        for text in texts:
            if owner := next((each for each in result if text in result[each]), None):
                raise click.BadParameter(f"{value}: {text} is {owner}'s already", ctx, param)
            result.setdefault(name, []).append(text)
    return result


def owned(opened: list[Source], tenants: dict[str, list[str]]) -> dict[str, list[Source]]:
    """The sources of each tenant."""
    return {name: [source for source in opened if source.text in texts] for name, texts in tenants.items()}


@click.command(short_help="What would KSM save here?")
@options.sources
@options.mappings
@options.era
@options.knobs
@options.settings
@options.passes
@options.budget
@options.interval
@options.as_passes
@options.holes
@options.zeros
@click.option("--project", type=click.IntRange(1, 1_000_000), metavar="N", help="Say what N further machines like these would add.")
@options.exact
@options.key
@options.threads
@options.gentle
@click.option(
    "--tenant", "tenants", multiple=True, metavar="NAME=SOURCE,...", callback=tenants_in,
    help="These SOURCEs are this tenant's: say what merges across tenants, what it tells, and what it costs to forbid it.",
)
@options.page
@click.option("--contents", is_flag=True, help="With --html: put in the first bytes of the contents that free most. They may be secrets.")
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")
def scan(
    sources: tuple[str, ...],
    which: Which | None,
    advised: bool,
    era: Era,
    knobs: str,
    settings: dict[str, str],
    passes: int | None,
    interval: float | None,
    budget: float,
    as_passes: bool,
    holes: Holes | None,
    zeros: scanner.Zeros,
    project: int | None,
    exact: bool,
    key_file: str | None,
    threads: int | None,
    gentle: bool,
    tenants: dict[str, list[str]],
    html: str | None,
    contents: bool,
    as_json: bool,
) -> None:
    """What would KSM save here?

    A SOURCE is pid:N for a running process, or a file: a raw memory image (QEMU's pmemsave, Firecracker), an ELF core (gcore, the
    kernel's, QEMU's dump-guest-memory), a compressed crash dump (makedumpfile, virsh dump), a saved guest (virsh save, QEMU's migrate), a
    dump of LiME, AVML, Windows or Xen, fingerprints (ksm fingerprint), or a folder of CRIU. A file may be packed with gzip, zstd, xz,
    bzip2, lz4, lzma or snappy; "-" is standard input. Without any, all processes that you may read. As root, the scan also knows which
    pages processes have in common since a fork.

    A hole of a file is memory that was never touched, or pages of zeros. A format says which, and --holes if you know better.

    Every page counts as if the process called prctl(PR_SET_MEMORY_MERGE) now, or as --as says. What KSM has merged already is told apart
    from what it would free on top of that. Where something cannot be seen, as by others than root, the report says at least and at most
    how much. Nothing is changed in the processes and files.

    A process goes on while it is read, and notices that. The kernel marks each page that is read as referenced: reclaim, idle page tracking
    and DAMON take it for used. Who maps or unmaps memory in the process waits while the scan looks at its page tables: 0.1 ms, or longer
    where other programs take the processor from the scan meanwhile. Where smaps has to be read (for --as advised and is, processes that
    have asked for KSM, and others than root) it waits 10 ms and more for each GiB of a mapping. A scan takes all processors for a while;
    --gentle takes a quarter of one.

    The report of --era 6.1 has no general_profit and no profit of a process, that of --era 2.6.38, the KSM of 2011, has no figures of a
    process at all: that KSM did not count them.

    With --tenant, sources that no --tenant names are those of "no tenant". A source has one tenant.
    """
    if as_passes and len(sources) < 2:
        raise click.UsageError("--as-passes needs two snapshots at least", click.get_current_context())
    if as_passes and passes is not None and passes < len(sources):
        raise click.UsageError(f"--passes {passes}: with --as-passes, there is one for each snapshot at least", click.get_current_context())
    if exact and key_file is not None:
        raise click.UsageError("--key is for fingerprints, and --exact makes none", click.get_current_context())
    if contents and html is None:
        raise click.UsageError("--contents is for the page of --html", click.get_current_context())
    if tenants and as_passes:
        raise click.UsageError("--tenant needs memory of one moment, and not --as-passes", click.get_current_context())
    sources = (*sources, *(text for each in tenants.values() for text in each if text not in sources))
    mappings = options.which_of(which, advised)
    key = None if key_file is None else options.key_in(key_file)
    threads = options.threads_of(threads, gentle)

    def how(host: Host) -> tuple[list[Source], list[str]]:
        if as_passes:
            from ksm.sources.snapshots import open_snapshots

            return open_snapshots(sources, holes), []
        return open_sources(sources, host, which=mappings, holes=holes)

    if as_passes:
        passes = passes or len(sources)
    with options.opened_sources(how, gentle=gentle) as (opened, remarks, _):
        if project and len(opened) == 1:
            raise click.UsageError("--project needs two sources at least: of one, nothing can be said", click.get_current_context())
        make: Callable[..., scanner.Scan] = scanner.Scan
        more: dict[str, Any] = {}
        if html is not None or tenants:
            from ksm.estimate.closer import CloserScan

            make = CloserScan
            more = {"details": html is not None, "contents": contents, "tenants": owned(opened, tenants) if tenants else None}
        with options.progress_bar() as progress, make(
            opened, settings=settings, era=era, exact=exact or None, key=key, threads=threads, zeros=zeros, project=project or 0,
            progress=progress, **more,
        ) as running:
            result = running.run(passes, interval, budget)
    result.notes[:0] = of_which(opened, mappings)
    result.notes.extend([*remarks, *click.get_current_context().meta["era_note"]])
    if html is not None:
        options.write_page(html, result)
    if as_json:
        import json

        click.echo(json.dumps(report.as_json(result), indent=2))
    else:
        # Imported here, because the group has this command only when it is asked for.
        from ksm.cli.group import COMMANDS

        report.print_report(result, report.terminal_width(), next_command(result, sources, COMMANDS))
        if result.tenants is not None:
            from ksm.estimate import tenants_report

            tenants_report.print_tenants(result.tenants, report.terminal_width())
