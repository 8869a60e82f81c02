# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm replay and ksm verify: workloads on the port, and on the running kernel."""

from __future__ import annotations

import json
import math
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import click

from ksm.host.files import FileError, open_to_write, read_file, too_large
from ksm.host.json_file import LARGEST, excess, parse_json
from ksm.oracle import recorded
from ksm.oracle.check import check_workload
from ksm.oracle.compare import Difference
from ksm.oracle.kernel import unavailable
from ksm.oracle.replay import run_port
from ksm.oracle.seeds import fitting, generate
from ksm.oracle.shrink import shrink
from ksm.oracle.verify import Reference, command, running_kernel
from ksm.oracle.verify import verify as verify_one
from ksm.oracle.workload import Json, OracleError

SAME, DIFFERENT = 0, 1  # exit codes of verify
FINDINGS = "ksm-verify-findings"
INPUT = click.Path(exists=True, dir_okay=False, allow_dash=True)


class Seeds(click.ParamType):  # type: ignore[type-arg]  # click before 8.4 takes no types
    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        first, dots, last = value.partition("..")
        try:
            seeds = range(int(first), int(last if dots else first) + 1)
        except ValueError:
            self.fail(f"{value}: it is written A..B", param, ctx)
        if not seeds or seeds[0] < 0:
            self.fail(f"{value}: there is no seed in this range", param, ctx)
        return seeds


class Command(click.ParamType):  # type: ignore[type-arg]  # click before 8.4 takes no types
    name = "command"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        if isinstance(value, list):
            return value
        try:
            words = shlex.split(value)
        except ValueError as error:
            self.fail(f"{value}: {str(error).lower()}", param, ctx)
        if not words:
            self.fail("there is no command", param, ctx)
        return words


def read_input(path: str) -> bytes:
    """A file, what the shell has opened for <(command), or - for standard input: LARGEST bytes at most. FileError."""
    if path != "-":
        return read_file(path, LARGEST)
    if sys.stdin is None:
        raise FileError("standard input is closed")
    try:
        data = sys.stdin.buffer.read(LARGEST + 1)
    except OSError as error:
        raise FileError(f"standard input: {error.strerror or error}") from None
    if len(data) > LARGEST:
        raise too_large("standard input", LARGEST)
    return data


def read_workload(path: str) -> tuple[Json, Json | None]:
    """A workload, and its outcome if the file holds one. UsageError if it is not a workload."""
    try:
        data = parse_json(read_input(path))
        outcome = None
        if isinstance(data, dict) and isinstance(data.get("workload"), dict):
            outcome = recorded.outcome_of(data)
            data = data["workload"]
        else:
            check_workload(data)
    except FileError as error:
        raise click.UsageError(str(error)) from None
    except (ValueError, OracleError) as error:
        raise click.UsageError(f"{named(path)}: no workload: {error}") from None
    return data, outcome


def named(path: str) -> str:
    return "standard input" if path == "-" else path


def one_of(files: tuple[str, ...], seeds: range | None, forever: bool | None = None) -> None:
    if (bool(files), bool(seeds), bool(forever)).count(True) != 1:
        raise click.UsageError("either a FILE or --seed" + (", or --forever" if forever is not None else ""))


seeds_option = click.option("--seed", "seeds", type=Seeds(), metavar="A..B", help="Random workloads; from 1000 to 1999 with huge pages.")
steps_option = click.option("--steps", type=click.IntRange(1, 100_000), default=40, show_default=True, help="Steps of a random workload.")


@click.command(short_help="Run a workload, and print what every pass left behind.")
@click.argument("file", type=INPUT, required=False)
@click.option("--pages", is_flag=True, help="Also print what every page maps to.")
@click.option("--events", is_flag=True, help="Also print the trace events of every pass.")
@click.option("--record", metavar="FILE", help="Also record each step of KSM in FILE, for ksm study --recording.")
@click.option("--record-steps", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Record so many steps at most.")
@seeds_option
@steps_option
def replay(
    file: str | None, pages: bool, events: bool, record: str | None, record_steps: int, seeds: range | None, steps: int
) -> None:
    """Run a workload, and print what every pass left behind, as JSON.

    FILE is a workload: a regular file of 64 MiB at most, <(a command), or - for standard input. `pydoc ksm.oracle.workload` tells what it
    is, and what is printed. Its processes may have 256 MiB of memory together.

    With --seed, nothing is run: random workloads are printed, one a line.
    """
    one_of((file,) if file else (), seeds)
    if file is None:
        if pages or events or record is not None:
            raise click.UsageError("--seed prints workloads, which have no pages and events yet")
        for seed in seeds or ():
            click.echo(json.dumps(generate(seed, steps=steps)))
        return
    workload, _ = read_workload(file)
    try:
        outcome = run_port(workload, pages=pages, events=events, record=0 if record is None else record_steps)
        if record is not None:
            write_recording(record, outcome.pop("recording"))
        click.echo(json.dumps(outcome))
    except OracleError as error:
        raise click.ClickException(f"{named(file)}: {error}") from None


def write_recording(path: str, recording: Json) -> None:
    text = json.dumps(recording, separators=(",", ":"))
    if reason := excess(text.encode()):  # ksm study would not read it
        raise click.ClickException(f"{path} is not written: it would have {reason}; take fewer --record-steps")
    try:
        with open(open_to_write(path), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


def terminated(number: int, _frame: Any) -> NoReturn:
    """End by an exception, so that settings of KSM are restored."""
    sys.exit(128 + number)


@click.command(short_help="Do the running kernel and the port do the same?")
@click.argument("files", type=INPUT, nargs=-1, metavar="[FILE]...")
@seeds_option
@steps_option
@click.option("--shrink", "shrinking", is_flag=True, help="Also print a smallest workload that still makes a difference.")
@click.option("--first", is_flag=True, help="Stop at the first workload that makes a difference.")
@click.option("--against", "words", type=Command(), metavar="COMMAND", help="Compare with what COMMAND prints for the workload it reads.")
@click.option(
    "--kernel", "other", metavar="VERSION|FILE",
    help="Boot this kernel with QEMU, and compare with it: 6.12, a package's name, file or folder.",
)
@click.option(
    "--nodes", type=click.IntRange(1, 8), metavar="N",
    help="NUMA nodes of the kernel that is booted, and of random workloads; on several, memory goes and breaks in seeds 2000 to 2999.",
)
@click.option("--recorded", "from_file", is_flag=True, help="Compare with the outcome that is recorded in each FILE.")
@click.option("--forever", is_flag=True, help="Random workloads of unused seeds, until Ctrl-C or for --minutes; keep what differs.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), metavar="N", help="End --forever after N minutes.")
@click.option(
    "--findings", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help=f"Where --forever keeps workloads that differ, and reports.  [default: {FINDINGS}]",
)
def verify(
    files: tuple[str, ...],
    seeds: range | None,
    steps: int,
    shrinking: bool,
    first: bool,
    words: list[str] | None,
    other: str | None,
    nodes: int | None,
    from_file: bool,
    forever: bool,
    minutes: float | None,
    findings: Path | None,
) -> None:
    """Do the running kernel and the port do the same?

    Runs workloads on both, with real processes on the kernel's side, and compares every counter, what every page maps to and every trace
    event, after every pass. Prints one line a workload, and for the first difference what it is, and the events of this pass.

    FILEs are workloads as for ksm replay. Needs root, and a machine where nobody else uses KSM. The settings in /sys/kernel/mm/ksm are
    restored at the end; until then they stand in /run/ksm_oracle.lock.saved.

    --forever begins with a random seed, and prints it: `--seed` repeats any of its workloads. A workload that differs is made smaller, for
    ten minutes at most, and the next one follows. The last line says how many were the same; after Ctrl-C, too.

    Ends with 0 if all is the same, 1 if something differs, 2 if that cannot be found out: wrong usage, no kernel that can be driven, or
    an error of the system.
    """
    one_of(files, seeds, forever)
    if not forever and (minutes is not None or findings is not None):
        raise click.UsageError("--minutes and --findings are for --forever")
    if minutes is not None and math.isnan(minutes):
        raise click.UsageError("Invalid value for '--minutes': nan is not in the range x>0.")
    if forever:
        check_writable(findings or Path(FINDINGS))
    if from_file and (words is not None or other is not None or not files):
        raise click.UsageError("--recorded is for FILEs, and needs nothing else to compare with")
    if words is not None and other is not None:
        raise click.UsageError("--against and --kernel are two things to compare with")
    if nodes is not None and other is None:
        raise click.UsageError("--nodes is for --kernel: the running kernel has the nodes that it has")
    reference: Reference = running_kernel if words is None else command(words)
    if words is None and other is None and not from_file and (reason := unavailable()):
        raise click.ClickException(reason)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminated)

    def draw(seed: int) -> Json:
        workload = generate(seed, steps=steps, nodes=nodes or 1)
        return workload if files_there is None else fitting(workload, files_there)

    def workloads() -> Iterator[tuple[Json, Json | None]]:
        for file in files:
            yield read_workload(file)
        for seed in seeds or ():
            yield draw(seed), None

    files_there: list[str] | None = None
    with ExitStack() as stack:
        try:
            if other is not None:
                from ksm.oracle.guest import Guests  # only another kernel needs it

                guests = stack.enter_context(Guests(other, nodes or 1))
                reference, files_there = guests.run, guests.files
            if forever:
                from ksm.oracle.forever import Forever, first_seed

                different = Forever(draw, reference, findings or Path(FINDINGS), click.echo).run(first_seed(), minutes, first)
            else:
                different = compare_all(workloads(), reference, from_file=from_file, shrinking=shrinking, first=first)
        except OracleError as error:
            raise click.ClickException(str(error)) from None
    sys.exit(DIFFERENT if different else SAME)


def check_writable(folder: Path) -> None:
    """Before a long run: whether the folder can be written to, or made. UsageError."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise click.UsageError(f"--findings {folder}: {there} cannot be written to: {error.strerror}") from None


def compare_all(
    workloads: Iterable[tuple[Json, Json | None]], reference: Reference, *, from_file: bool, shrinking: bool, first: bool
) -> int:
    """Verify each workload, with its recorded outcome or with the reference, and print a line: how many differ."""
    different = 0
    for workload, outcome in workloads:
        name = workload.get("name") or "workload"
        try:
            if from_file and outcome is None:
                raise OracleError("there is no outcome in this file")
            compare = (lambda part, outcome=outcome: prefix(outcome, part)) if from_file else reference
            found = verify_one(workload, compare)
            click.echo(found.report(name) if found else f"{name}: the same")
            if found and shrinking:
                smallest(workload, found, compare)
        except OracleError as error:
            raise click.ClickException(f"{name}: {error}") from None
        different += bool(found)
        if different and first:
            break
    return different


def prefix(outcome: Json, workload: Json) -> Json:
    """The part of an outcome that belongs to the first steps of its workload."""
    whole, steps = outcome["of"], workload["steps"]
    if workload != {**whole, "steps": whole["steps"][:len(steps)]}:
        raise OracleError("a recorded outcome is that of its own workload only")
    return {**outcome, "records": [record for record in outcome["records"] if record["step"] < len(steps)]}


def smallest(workload: Json, found: Difference, reference: Reference) -> None:
    smaller, tried = shrink(workload, lambda part: verify_one(part, reference) is not None, found.step)
    last = verify_one(smaller, reference)
    click.echo(f"after {tried} smaller ones: {last.report('the smallest') if last else 'the difference does not come again'}")
    click.echo(json.dumps(smaller))
