# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""What the commands of ksm fleet have in common: their files, and how they are asked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ksm.fleet.answers import LEAST_MEMORY, MOST_SAMPLE
from ksm.fleet.engines.steps import Options
from ksm.fleet.files import FleetError
from ksm.host.text import printable
from ksm.machine import parse_size

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def bytes_in(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """What --memory says."""
    if value is None:
        return None
    try:
        size: int = parse_size(value)
    except ValueError:
        raise click.BadParameter(f"{value}: it is a number of bytes, or one with K, M, G or T behind it", ctx, param) from None
    if size < LEAST_MEMORY:
        raise click.BadParameter(f"{value}: at least {LEAST_MEMORY >> 20}M", ctx, param)
    return size


def sample_in(ctx: click.Context, param: click.Parameter, value: str | None) -> int:
    """What --sample says."""
    if value is None:
        return 1
    found = re.fullmatch(r"1/([0-9]{1,10})", value)
    if not found or not 1 <= int(found[1]) <= MOST_SAMPLE:
        raise click.BadParameter(f"{value}: it is written 1/N, of an N up to {MOST_SAMPLE:,}", ctx, param)
    return int(found[1])


def tenants_in(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, list[str]]:
    """What --tenant says: the sources of each tenant."""
    result: dict[str, list[str]] = {}
    for value in values:
        name, equals, sources = value.partition("=")
        some = [each for each in sources.split(",") if each]
        if not equals or not name or not some:
            raise click.BadParameter(f"{value}: it is written NAME=SOURCE,...", ctx, param)
        result.setdefault(name, []).extend(some)
    return result


def folder_in(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (os.path.isdir(value) and os.access(value, os.W_OK)):
        raise click.BadParameter(f"{value}: no folder that you may write to", ctx, param)
    return value


files = click.argument("files", nargs=-1, required=True, metavar="FILES...")
placement = click.option(
    "--placement", metavar="CSV", help="Take the hosts of sources from this file, with the columns source and host.  [default: FILES say]"
)
tenants = click.option(
    "--tenant", "tenants", multiple=True, metavar="NAME=SOURCE,...", callback=tenants_in,
    help="These SOURCEs are this tenant's: HOST:SOURCE, SOURCE, or a pattern of either.",
)  # fmt: skip
sample = click.option(
    "--sample", metavar="1/N", callback=sample_in, help="Look at one of N contents, as its fingerprint says.  [default: all]"
)
as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


def engines(command: Decorated) -> Decorated:
    """The options on what does the work: the parameters of options_of()."""
    for option in (
        click.option("--temp", metavar="DIR", callback=folder_in, help="Put what does not fit into memory there.  [default: $TMPDIR]"),
        click.option("--threads", type=click.IntRange(1, 256), metavar="N", help="Compare with N threads.  [default: all processors]"),
        click.option(
            "--memory", metavar="SIZE", callback=bytes_in,
            help="Take so much memory at most, as 4G; with dask, in each worker.  [default: half of what is available]",
        ),
        click.option("--scheduler", metavar="ADDRESS", help="The scheduler of the Dask cluster, as tcp://host:8786."),
        click.option(
            "--engine", type=click.Choice(["duckdb", "dask"]), default="duckdb", show_default=True,
            help="Compare in this process, or on a Dask cluster, whose workers see FILES and --temp.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def options_of(engine: str, scheduler: str | None, memory: int | None, threads: int | None, temp: str | None) -> Options:
    """UsageError."""
    if engine == "dask" and scheduler is None:
        raise click.UsageError("--engine dask needs --scheduler ADDRESS", click.get_current_context())
    if engine != "dask" and scheduler is not None:
        raise click.UsageError("--scheduler is for --engine dask", click.get_current_context())
    return Options(engine, memory, threads, temp, scheduler)


@contextmanager
def errors() -> Iterator[None]:
    """A FleetError is one line."""
    try:
        yield
    except FleetError as error:
        raise click.ClickException(printable(str(error))) from None
