# SPDX-License-Identifier: GPL-2.0-only
"""One workload on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from ksm.estimate.eras import nearest_era
from ksm.host.command import CommandError, output_of
from ksm.host.json_file import LARGEST, parse_json
from ksm.oracle.check import check_outcome
from ksm.oracle.compare import Difference, first_difference
from ksm.oracle.kernel import run_kernel
from ksm.oracle.replay import run_port
from ksm.oracle.workload import Json, OracleError

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

ATTEMPTS = 5
Reference = Callable[[Json], Json]  # a workload's true outcome, with pages and events


def running_kernel(workload: Json, guest: bool = False) -> Json:
    """The outcome on the running kernel."""
    return run_kernel(workload, pages=True, events=True, guest=guest)


def command(words: list[str]) -> Reference:
    """A reference that is a command: it reads the workload, and prints the outcome, of LARGEST bytes at most."""
    def reference(workload: Json) -> Json:
        try:
            outcome: Json = parse_json(output_of(words, LARGEST, json.dumps(workload).encode()))
            check_outcome(outcome)
        except CommandError as error:
            raise OracleError(str(error)) from None
        except (ValueError, OracleError) as error:
            raise OracleError(f"{words[0]}: its output is not an outcome: {error}") from None
        return outcome
    return reference


def era_of(outcome: Json) -> Era:
    """The era whose KSM the kernel of an outcome has, or one that is near: docs/eras.md says how near."""
    return nearest_era(str(outcome.get("kernel", "")))


def verify(workload: Json, reference: Reference = running_kernel) -> Difference | None:
    """The first difference between the running kernel and the port in counters, pages and events; None if they do the same.

    A difference counts when the kernel does the same twice in a row: programs that do not take the lock may disturb a run.
    OracleError if the kernel does not repeat itself.
    """
    port: Json | None = None
    last: Json | None = None
    for _ in range(ATTEMPTS):
        kernel = reference(workload)
        if port is None:
            events = any("events" in record for record in kernel["records"])
            port = run_port(workload, pages=True, events=events, by_frames=kernel.get("by_frames", False), era=era_of(kernel))
        found = first_difference(kernel, port)
        if found is None or kernel == last:
            return found
        last = kernel
    raise OracleError(f"{workload.get('name', 'workload')}: the kernel does not repeat itself")
