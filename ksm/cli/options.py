# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""What commands that read memory have in common: options, keys, and the progress bar."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ksm.estimate import eras, report
from ksm.estimate import scan as scanner
from ksm.estimate.pace import BUDGET
from ksm.estimate.settings import SettingError, check_settings, writable
from ksm.host.text import printable
from ksm.machine import ERAS, Machine
from ksm.sources import Host, Source, SourceError
from ksm.sources.gentle import gently
from ksm.sources.mappings import EACH_WHICH, Which

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

sources = click.argument("sources", nargs=-1, metavar="[SOURCE]...")


def mappings(command: Decorated) -> Decorated:
    """The options on which mappings of processes count: the parameters `which` and `advised`. See which_of()."""
    which = click.option(
        "--as", "which", type=click.Choice(EACH_WHICH), metavar="|".join(EACH_WHICH),
        help="Of processes, take what is mergeable after prctl(PR_SET_MEMORY_MERGE), called now; only what is mergeable already (advised); "
        "or that, and name the rest (is).  [default: prctl]",
    )  # fmt: skip
    return which(click.option("--advised", is_flag=True, help="The same as --as advised.")(command))


def which_of(which: Which | None, advised: bool) -> Which:
    """What --as and --advised say together. UsageError."""
    if advised and which not in (None, "advised"):
        raise click.UsageError(f"--advised is --as advised, and --as {which} is something else", click.get_current_context())
    return "advised" if advised else which or "prctl"


def era_of(ctx: click.Context, param: click.Parameter, era: Era | None) -> Era:
    """The era that is asked for, or that of the running kernel."""
    ctx.meta["era_note"] = eras.era_note(eras.running_era(), eras.running_release()) if era is None else []
    return era or eras.running_era()


era = click.option(
    "--era", type=click.Choice([*ERAS]), is_eager=True, callback=era_of,
    help="Use the KSM of this Linux version.  [default: the one nearest to the running kernel]",
)  # fmt: skip
knobs = click.option(
    "--knobs", type=click.Choice(["default", "running"]), default="default", is_eager=True,
    help="Use the kernel's defaults, or what the running kernel has.",
)  # fmt: skip


class Seconds(click.FloatRange):
    """A range that also leaves out NaN, which is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{number} is not in the range {self.min}<=x<={self.max}.", param, ctx)
        return number


def running(ctx: click.Context, param: click.Parameter) -> dict[str, str]:
    """The knobs of the running kernel that this era has, too."""
    from ksm.host import knobs

    with Machine(memory=1 << 16, max_memory=1 << 16, era=ctx.params["era"]) as machine:
        names = writable(machine)
    try:
        return knobs.running_knobs([name for name in names if name != "run"], knobs.RUNNING)
    except OSError as error:
        raise click.ClickException(f"--knobs running: {error.filename}: {error.strerror}") from None


def settings_in(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """What --knobs and --set say, tried before anything is read."""
    result = running(ctx, param) if ctx.params["knobs"] == "running" else {}
    for value in values:
        name, equals, setting = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value}: it is written KNOB=VALUE", ctx, param)
        result[name] = setting
    try:
        if result:
            check_settings(result, ctx.params["era"])
    except SettingError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return result


settings = click.option(
    "--set", "settings", multiple=True, metavar="KNOB=VALUE", callback=settings_in, help="Write a file of /sys/kernel/mm/ksm first."
)
passes = click.option("--passes", type=click.IntRange(1, 1_000_000), metavar="N", help="Make N passes.  [default: until nothing changes]")
budget = click.option(
    "--budget", type=Seconds(0, 30 * 86400), default=BUDGET, metavar="SECONDS",
    help=f"Watch processes for as long as ksmd takes at these knobs, and so long at most.  [default: {BUDGET:g}]",
)  # fmt: skip
interval = click.option("--interval", type=Seconds(0, 86400), metavar="SECONDS", help="Wait so long between passes, whatever ksmd takes.")
as_passes = click.option("--as-passes", is_flag=True, help="The SOURCEs are snapshots of the same memory: each pass sees the next one.")
exact = click.option(
    "--exact", is_flag=True, help="Keep the bytes of processes and streams, and not fingerprints. Takes as much memory again."
)
key = click.option("--key", "key_file", metavar="FILE", help="Make fingerprints with this key, beside a file of ksm fingerprint --key.")
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
gentle = click.option(
    "--gentle", is_flag=True, help="Of processes, read less at once, and rest three quarters of the time. Takes longer."
)


def page_at(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """What --html says: whether the page can be made is found out before anything is read, which may take long."""
    if value is None:
        return None
    from ksm.pictures.page import PicturesError, need_altair

    try:
        need_altair()
        folder = os.path.dirname(os.path.realpath(value))
        if not value or os.path.isdir(value):
            raise click.BadParameter(f"{value!r}: a file is needed", ctx, param)
        if not os.access(folder, os.W_OK):
            raise click.ClickException(f"{value}: {os.strerror(errno.EACCES if os.path.isdir(folder) else errno.ENOENT)}")
    except PicturesError as error:
        raise click.ClickException(str(error)) from None
    except ValueError:
        raise click.BadParameter("no file has such a name", ctx, param) from None
    return value


page = click.option(
    "--html", metavar="FILE", callback=page_at, help="Write the report as a page with pictures, too. It needs no network."
)


def write_page(path: str, found: Any) -> None:
    """Write the page of what scan, why or sweep have found. What draws it is imported here, because few calls need it."""
    from ksm.pictures import page
    from ksm.pictures.html import html

    page.write(path, html(found))


def threads_of(threads: int | None, gentle: bool) -> int | None:
    """What --threads and --gentle say together. UsageError."""
    if gentle and threads not in (None, 1):
        raise click.UsageError(f"--gentle works with one thread, and not with --threads {threads}", click.get_current_context())
    return 1 if gentle else threads


@contextmanager
def opened_sources(
    how: Callable[[Host], tuple[list[Source], list[str]]], *, gentle: bool
) -> Iterator[tuple[list[Source], list[str], Host]]:
    """The sources that are opened so, what there is to remark of them, and the host; closed at the end. A SourceError is one line."""
    click.get_current_context().with_resource(gently(gentle))
    host = Host(gentle=gentle)
    opened: list[Source] = []
    try:
        opened, remarks = how(host)
        if not opened:
            raise click.ClickException("there is no process that you may read" + (f": {remarks[0]}" if remarks else ""))
        yield opened, remarks, host
    except SourceError as error:
        raise click.ClickException(str(error)) from None
    finally:
        for source in opened:
            source.close()
        host.close()


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
