# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm fingerprint: what stands for the pages of memory, in a file."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import click

from ksm.cli import options
from ksm.estimate.scan import Progress
from ksm.host.text import printable, size
from ksm.rows.format import RowsError, need_pyarrow
from ksm.sources import Host, Source, SourceGone, Which, open_sources
from ksm.sources.advice import of_which
from ksm.sources.input import Holes
from ksm.sources.save import save_file
from ksm.sources.work import usable_threads

NUMBER = "%N"  # in a file's name: which snapshot it is
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = 31 * 86400  # seconds between two snapshots
LONGEST_NAME = 255  # characters of a host's


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A time as 90, 90s, 10m, 2h or 1d, in seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", value)
    if not found:
        raise click.BadParameter(f"{value}: it is written as 30s, 10m, 2h or 1d", ctx, param)
    result = float(found[1]) * UNITS[found[2]]
    if result > LONGEST:
        raise click.BadParameter(f"{value}: at most {LONGEST // 86400}d", ctx, param)
    return result


def host_in(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """What --host says: a name that can be told from others on a terminal."""
    if value is not None and (not value or len(value) > LONGEST_NAME or printable(value) != value):
        raise click.BadParameter(f"{printable(value)[:LONGEST_NAME]!r}: a host's name is needed", ctx, param)
    return value


@click.command(short_help="Write fingerprints of pages into a file.")
@options.sources
@click.option("-o", "output", required=True, metavar="FILE", help="The file that is written, or replaced when all went well.")
@options.mappings
@options.holes
@click.option("--key", "key_file", metavar="FILE", help="Make fingerprints with the key in this file: 32 bytes, or 64 hex digits.")
@click.option(
    "--host", callback=host_in, metavar="NAME", help="Say that the memory is of this host, as ksm fleet takes it.  [default: this computer]"
)
@options.threads
@options.gentle
@click.option("--every", callback=seconds, metavar="TIME", help="Make a snapshot each time that so much time has passed: 30s, 10m, 2h, 1d.")
@click.option("--count", type=click.IntRange(1, 100_000), metavar="N", help="Make N snapshots, with --every.")
def fingerprint(
    sources: tuple[str, ...],
    output: str,
    which: Which | None,
    advised: bool,
    holes: Holes | None,
    key_file: str | None,
    host: str | None,
    threads: int | None,
    gentle: bool,
    every: float | None,
    count: int | None,
) -> None:
    """Write fingerprints of pages into a file.

    A SOURCE is what ksm scan takes: pid:N for a running process, or a file of memory. Without any, all processes that you may read.

    The file has a row for each page, in Parquet: source, address, fingerprint (16 bytes), checksum and class. ksm scan takes it as a
    source, beside processes and images. Bytes of pages are not in it. But who has a page can find out whether it was there,
    unless the file was made with --key; the classes and addresses are there in any case.

    With --every and --count, %N in the name of the file is the number of the snapshot, from 0; a folder gets %N.parquet. For ksm scan
    --as-passes. Snapshots end early when all processes have exited.
    """
    context = click.get_current_context()
    if (every is None) != (count is None):
        raise click.UsageError("--every and --count go together", context)
    if not output:
        raise click.UsageError("-o: the name of a file is needed", context)
    if output == "-":
        raise click.UsageError("-o -: a fingerprint file is written whole or not at all, and so not to standard output", context)
    if every is not None and os.path.isdir(output):
        output = os.path.join(output, f"{NUMBER}.parquet")
    if every is not None and NUMBER not in os.path.basename(output):
        raise click.UsageError(f"-o {output}: with --every, its name needs {NUMBER}, for the number of the snapshot", context)
    for path in [output] if count is None else names_of(output, count):
        if os.path.exists(path) and any(same_file(text, path) for text in sources):
            raise click.UsageError(f"-o {path}: that is a source", context)
    mappings = options.which_of(which, advised)
    key = None if key_file is None else options.key_in(key_file)
    threads = options.threads_of(threads, gentle)
    opening = options.opened_sources(lambda host: open_sources(sources, host, which=mappings, holes=holes), gentle=gentle)
    try:
        need_pyarrow()
        with opening as (opened, remarks, reader):
            for source in opened:
                source.threads = threads or usable_threads()
            with options.progress_bar() as progress:
                if every is None or count is None:
                    remarks += write(output, opened, key, host, progress)[1]
                else:
                    snapshots(output, opened, key, host, every, count, reader, progress)
    except RowsError as error:
        raise click.ClickException(str(error)) from None
    if any(source.standing.left for source in opened):
        remarks = [*of_which(opened, mappings), *remarks]
    for remark in remarks:
        click.echo(f"- {printable(remark)}")


def same_file(source: str, path: str) -> bool:
    """Whether a source as the user wrote it is this file, by whatever name, or a folder in which it lies; standard input, too."""
    if source.startswith("pid:"):
        return False
    try:
        if os.path.isdir(source):
            return os.path.samefile(source, os.path.dirname(path) or ".")
        return os.path.samefile(0 if source == "-" else source, path)
    except OSError:
        return False


def names_of(output: str, count: int) -> Iterator[str]:
    """The files of snapshots."""
    folder, name = os.path.split(output)
    digits = len(str(count - 1))
    for number in range(count):
        yield os.path.join(folder, name.replace(NUMBER, f"{number:0{digits}}"))


def write(
    path: str, sources: list[Source], key: bytes | None, host: str | None, progress: Progress
) -> tuple[list[Source], list[str]]:
    """Write a file, and say so: the sources that are in it, and remarks on the others."""
    try:
        saved = save_file(path, sources, key=key, host=host, progress=progress)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror or error}") from None
    several = f" of {len(saved.sources):,} sources" if len(saved.sources) > 1 else ""
    click.echo(f"{printable(path)}: {saved.pages:,} pages{several} in {size(saved.size)}")
    return saved.sources, [f"skipped {reason}" for reason in saved.left]


def snapshots(
    output: str, sources: list[Source], key: bytes | None, host: str | None, every: float, count: int, reader: Host, progress: Progress
) -> None:
    """Write `count` files, one each time that `every` seconds have passed, or until all processes have exited."""
    begun = time.monotonic()
    for number, path in enumerate(names_of(output, count)):
        left = begun + number * every - time.monotonic()
        if left > 0:
            progress(f"waiting for snapshot {number}", 0, 0)
            time.sleep(left)
        reader.begin(number)
        try:
            sources, remarks = write(path, sources, key, host, progress)
        except SourceGone as error:
            if not number:
                raise
            click.echo(f"- {printable(str(error))}: {number} of {count} snapshots were made")
            return
        for remark in remarks:
            click.echo(f"- {printable(remark)}")
