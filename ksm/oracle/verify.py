# SPDX-License-Identifier: GPL-2.0-only
"""One workload on both sides."""

from __future__ import annotations

from ksm.oracle.compare import Difference, first_difference
from ksm.oracle.kernel import run_kernel
from ksm.oracle.replay import run_port
from ksm.oracle.workload import Json, OracleError

ATTEMPTS = 5


def verify(workload: Json, *, pages: bool = False, events: bool = False) -> Difference | None:
    """The first difference between the running kernel and the port; None if they do the same.

    A difference counts when the kernel does the same twice in a row: programs that know nothing of the lock may come between.
    OracleError if the kernel does not repeat itself.
    """
    port = run_port(workload, pages=pages, events=events)
    last: Json | None = None
    for _ in range(ATTEMPTS):
        kernel = run_kernel(workload, pages=pages, events=events)
        found = first_difference(kernel, port)
        if found is None or kernel == last:
            return found
        last = kernel
    raise OracleError(f"{workload.get('name', 'workload')}: the kernel does not repeat itself")
