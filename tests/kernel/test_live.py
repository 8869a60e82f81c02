# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel and the port do the same. Runs as root, where KSM is used by nobody else; a file lock lets in one at a time."""

import os
import re
import time

import pytest

from ksm.oracle.generate import generate
from ksm.oracle.kernel import leaves_traces, run_kernel, unavailable
from ksm.oracle.verify import verify
from ksm.oracle.workload import OracleError

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(bool(unavailable()), reason=unavailable())]

CASES = [(seed, batches, wide) for batches in (False, True) for wide in (False, True) for seed in range(5)]


def at_rest(call):
    """The call's answer, when KSM is free for it. Tests that run beside this one have mergeable processes too, but not for long."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except OracleError as error:
            if not re.match("other processes|another program|.*does not repeat itself", str(error)):
                raise
            if time.monotonic() > deadline:
                # On a machine with KSM this has to run where it counts.
                (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        time.sleep(0.5)


@pytest.mark.parametrize(("seed", "batches", "wide"), CASES)
def test_same_as_the_running_kernel(seed, batches, wide):
    workload = generate(seed, batches=batches, wide=wide)
    assert at_rest(lambda: verify(workload, pages=True, events=True)) is None


def test_what_would_leave_traces_is_refused():
    vma = {"name": "v", "pages": 1, "contents": [0]}
    workload = {"name": "", "settings": {"use_zero_pages": 1}, "procs": [{"name": "a", "vmas": [vma]}],
                "steps": [{"op": "madvise", "proc": "a", "vma": "v", "advice": "wipeonfork"}, {"op": "fork", "proc": "a", "child": "b"}]}
    assert leaves_traces(workload)
    with pytest.raises(OracleError, match="until the next boot"):
        run_kernel(workload)
