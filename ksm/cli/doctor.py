# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm doctor: what do the counters of KSM mean, and what is wrong?"""

from __future__ import annotations

import json
import os
import sys
import time

import click

from ksm.cli import options
from ksm.constants import PAGE_SIZE
from ksm.estimate import doctor as diagnosis
from ksm.estimate.counters import KSM_STAT, SYSTEM, Counters, version_of
from ksm.estimate.prometheus import exposition
from ksm.estimate.report import terminal_width
from ksm.estimate.terminal import print_lines
from ksm.host.files import FileError, read_file, too_large
from ksm.host.ksm_counters import LARGEST, Reading, read_lines, read_tree
from ksm.host.memory import page_size


def version(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            version_of(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None
    return value


def size_of_page(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    if value is not None and value & (value - 1):
        raise click.BadParameter(f"{value} is no power of two", ctx, param)
    return value


def read(source: str | None, folder: str | None) -> Reading:
    """What there is to read. FileError."""
    if source is None:
        return read_tree("/" if folder is None else folder, SYSTEM, KSM_STAT)
    if source == "-":
        data, what = sys.stdin.buffer.read(LARGEST + 1), "standard input"
        if len(data) > LARGEST:
            raise too_large(what, LARGEST)
    else:
        data, what = read_file(source, LARGEST), source
    return read_lines(data, what, SYSTEM, KSM_STAT)


def counted(reading: Reading, kernel: str | None, size: int) -> Counters:
    """The counters of a reading. ClickException."""
    try:
        release = version_of(kernel or reading.release or os.uname().release)
        return Counters(reading.system, reading.processes, release, size)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@click.command(short_help="What do the counters of KSM mean, and what is wrong?")
@click.argument("source", required=False, metavar="[FILE|-]")
@click.option("--sysfs-dir", "folder", metavar="DIR", help="Read a copy of /sys/kernel/mm/ksm, or of / with sys and proc in it.")
@click.option(
    "--kernel", metavar="VERSION", callback=version,
    help="Use the formulas of this version of Linux, as 6.1.  [default: what the copy says, or the running one]",
)
@click.option(
    "--page-size", "size", type=click.IntRange(4096, 1 << 20), metavar="BYTES", callback=size_of_page,
    help="Say how large a page is.  [default: of this computer; 4096 of copies]",
)
@click.option("--watch", type=options.Seconds(0.1, 86400), metavar="SECONDS", help="Say it again and again, so often, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON; with --watch, a line each time.")
@click.option("--prometheus", is_flag=True, help="Write the text format of Prometheus.")
def doctor(
    source: str | None,
    folder: str | None,
    kernel: str | None,
    size: int | None,
    watch: float | None,
    as_json: bool,
    prometheus: bool,
) -> None:
    """What do the counters of KSM mean, and what is wrong?

    Reads /sys/kernel/mm/ksm, /proc/vmstat and /proc/PID/ksm_stat of the running kernel, and writes nothing to them. As root, it sees all
    processes. FILE, or "-" for standard input, has lines with a name and a value instead, of whatever counters there are. What this command
    prints will do:

    \b
        grep . /sys/kernel/mm/ksm/* /proc/[0-9]*/ksm_stat

    It says what is saved and what that costs, with the formula of the kernel's version; what is wrong, and what to do. Counters that cannot
    be are named, with the version that has mended it. What it finds does not change the exit code.
    """
    ctx = click.get_current_context()
    if source is not None and folder is not None:
        raise click.UsageError("--sysfs-dir is another place to read than FILE", ctx)
    if as_json and prometheus:
        raise click.UsageError("--json and --prometheus are two forms", ctx)
    if watch is not None and source == "-":
        raise click.UsageError("--watch reads again and again, and standard input can be read once", ctx)
    if watch is not None and prometheus:
        raise click.UsageError("--prometheus has one moment: let Prometheus ask again, and not --watch", ctx)
    of_a_copy = source is not None or folder is not None
    before: Counters | None = None
    while True:
        began = time.monotonic()
        try:
            reading = read(source, folder)
        except FileError as error:
            raise click.ClickException(str(error)) from None
        counters = counted(reading, kernel, size or (PAGE_SIZE if of_a_copy else page_size()))
        found = diagnosis.of_counters(counters)
        if prometheus:
            click.echo(exposition(counters, found), nl=False)
        elif as_json:
            value = {**({} if watch is None else {"time": round(time.time(), 3)}), **diagnosis.as_json(counters, found)}
            click.echo(json.dumps(value, indent=2 if watch is None else None))
        else:
            if watch is not None:
                click.echo(("" if before is None else "\n") + time.strftime("%Y-%m-%d %H:%M:%S"))
            print_report(counters, found, reading.unreadable, before)
        if watch is None:
            return
        sys.stdout.flush()
        before = counters
        time.sleep(max(0.0, watch - (time.monotonic() - began)))


def print_report(counters: Counters, found: diagnosis.Diagnosis, unreadable: int, before: Counters | None) -> None:
    print_lines(diagnosis.lines(counters, found, terminal_width()))
    if before is not None:
        click.echo(f"\nSince the last time: {diagnosis.changes(before, counters)}")
    if unreadable:
        click.echo(f"\n{unreadable:,} processes may not be read: root sees them.")
