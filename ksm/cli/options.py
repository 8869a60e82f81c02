# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""What commands that read memory have in common: options, keys, and the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ksm.estimate import report
from ksm.estimate import scan as scanner
from ksm.host.text import printable

sources = click.argument("sources", nargs=-1, metavar="[SOURCE]...")
advised = click.option("--advised", is_flag=True, help="Of processes, take only memory that is MADV_MERGEABLE already.")
holes = click.option(
    "--holes", type=click.Choice(["absent", "zeros"]), help="Say what holes of files are.  [default: what the format means by them]"
)
zeros = click.option(
    "--zeros", type=click.Choice(["apart", "count"]), default="apart",
    help="Count pages of zeros in dumps and images, or set them apart: many were never touched, and are not there.  [default: apart]",
)
threads = click.option(
    "--threads", type=click.IntRange(1, 256), metavar="N", help="Read and hash with N threads.  [default: all processors]"
)


@contextmanager
def progress_bar() -> Iterator[scanner.Progress]:
    """A progress bar on stderr; none if stderr is not a terminal."""
    if not sys.stderr or not sys.stderr.isatty():
        yield scanner.no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=report.shortened(printable(what), 40), completed=done, total=total or None)

        yield show


def key_in(path: str) -> bytes:
    """The key in a file. ClickException."""
    from ksm.fingerprint.key import read_key
    from ksm.host.files import FileError

    try:
        return read_key(path)
    except FileError as error:
        raise click.ClickException(str(error)) from None
