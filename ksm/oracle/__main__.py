# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's side alone: `python -m ksm.oracle`. The commands `ksm replay` and `ksm verify` are for everything else."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import click

from ksm.cli.group import OneLine
from ksm.cli.workloads import INPUT, named, read_workload, terminated
from ksm.oracle import recorded
from ksm.oracle.kernel import run_kernel
from ksm.oracle.workload import OracleError


@click.group(cls=OneLine)
def main() -> None:
    """Run workloads on the running kernel's KSM. Needs root. What a workload is: pydoc ksm.oracle.workload."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminated)  # so that settings are restored


@main.command()
@click.argument("workload", type=INPUT)
@click.option("--pages", is_flag=True, help="Also what every page maps to.")
@click.option("--events", is_flag=True, help="Also the trace events of every pass.")
def kernel(workload: str, **what: Any) -> None:
    """Print the outcome of a workload."""
    try:
        click.echo(json.dumps(run_kernel(read_workload(workload)[0], **what)))
    except OracleError as error:
        raise click.ClickException(f"{named(workload)}: {error}") from None


@main.command()
@click.argument("files", type=click.Path(path_type=Path, dir_okay=False, exists=True), nargs=-1)
def record(files: tuple[Path, ...]) -> None:
    """Run the workload of each file on the running kernel, and put the outcome into the file. A file is a workload or a recording."""
    for path in files:
        workload, _ = read_workload(str(path))
        try:
            recorded.record(path, workload)
        except OracleError as error:
            raise click.ClickException(f"{path}: {error}") from None


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
def serve(folder: Path) -> None:
    """In a guest of `ksm verify --kernel`: run the workloads that come into the folder."""
    from ksm.oracle import guest

    guest.serve(folder)


if __name__ == "__main__":
    main(prog_name="python -m ksm.oracle")
