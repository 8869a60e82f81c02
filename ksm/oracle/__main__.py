# SPDX-License-Identifier: GPL-2.0-only
"""The command `python -m ksm.oracle`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import click

from ksm.oracle import recorded
from ksm.oracle.generate import generate
from ksm.oracle.kernel import run_kernel
from ksm.oracle.replay import run_port
from ksm.oracle.verify import verify as verify_one
from ksm.oracle.workload import Json, OracleError, check_workload

DIFFERENT, UNUSABLE = 1, 2  # exit codes


def options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function
    return decorate


observing = options(
    click.option("--pages", is_flag=True, help="Record what every page maps to."),
    click.option("--events", is_flag=True, help="Record the trace events."),
)
generating = options(
    click.option("--steps", default=40, show_default=True),
    click.option("--max-pages", default=32, show_default=True, help="Of a VMA."),
    click.option("--batches", is_flag=True, help="Also operate within a full scan."),
    click.option("--no-prune", "prune", flag_value=False, default=True, help="Leave stable_node_chains_prune_millisecs alone."),
    click.option("--wide", is_flag=True, help="Also use mprotect, and advice on fork."),
)


def read_workload(file: IO[str]) -> Json:
    try:
        workload: Json = json.load(file)
    except ValueError as error:
        raise OracleError(f"{file.name}: {error}") from None
    workload = workload["workload"] if isinstance(workload, dict) and "records" in workload else workload
    check_workload(workload)
    return workload


@click.group()
def main() -> None:
    """Run workloads on the kernel's KSM and on the port, and compare. What a workload is: pydoc ksm.oracle.workload."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(UNUSABLE))  # so that settings are restored


@main.command("generate")
@click.argument("seed", type=int)
@generating
def generate_command(seed: int, **how: Any) -> None:
    """Print the random workload of a seed."""
    click.echo(json.dumps(generate(seed, **how)))


@main.command()
@click.argument("workload", type=click.File())
@observing
def replay(workload: IO[str], **what: Any) -> None:
    """Run a workload on the port and print the outcome."""
    click.echo(json.dumps(run_port(read_workload(workload), **what)))


@main.command()
@click.argument("workload", type=click.File())
@observing
def kernel(workload: IO[str], **what: Any) -> None:
    """Run a workload on the running kernel and print the outcome. Needs root."""
    click.echo(json.dumps(run_kernel(read_workload(workload), **what)))


@main.command()
@click.argument("workload", type=click.File())
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
def record(workload: IO[str], output: Path) -> None:
    """Run a workload on the running kernel and keep the outcome in a file. WORKLOAD may be such a file: it is made anew."""
    what = read_workload(workload)
    workload.close()
    recorded.record(output, what)


def seed_range(_context: Any, _parameter: Any, value: str | None) -> range:
    if value is None:
        return range(0)
    first, _, last = value.partition("-")
    try:
        return range(int(first), int(last or first) + 1)
    except ValueError:
        raise click.BadParameter("seeds are a number, or two with - between") from None


@main.command()
@click.argument("workload", type=click.File(), nargs=-1)
@click.option("--seeds", callback=seed_range, metavar="A-B", help="Random workloads.")
@observing
@generating
def verify(workload: tuple[IO[str], ...], seeds: range, pages: bool, events: bool, **how: Any) -> None:
    """Run workloads on both sides and print the first difference of each. Exit code 1 if there is one."""
    def workloads() -> Iterable[Json]:
        yield from map(read_workload, workload)
        for seed in seeds:
            yield generate(seed, **how)

    count = different = 0
    for one in workloads():
        count += 1
        found = verify_one(one, pages=pages, events=events)
        if found:
            different += 1
            click.echo(f"{one.get('name', 'workload')}: {found}")
    click.echo(f"{count} workloads, {different} with a difference")
    sys.exit(DIFFERENT if different else 0)


if __name__ == "__main__":
    try:
        main(prog_name="python -m ksm.oracle")
    except OracleError as failure:
        print(f"ksm.oracle: {failure}", file=sys.stderr)
        sys.exit(UNUSABLE)
