# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel and the port do the same. Runs as root, where KSM is used by nobody else; a file lock lets in one at a time."""

import re

import pytest

from ksm.oracle.generate import generate
from ksm.oracle.kernel import leaves_traces, run_kernel, unavailable
from ksm.oracle.verify import verify
from ksm.oracle.workload import OracleError

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(bool(unavailable()), reason=unavailable())]

CASES = [(seed, batches, wide) for batches in (False, True) for wide in (False, True) for seed in range(5)]


@pytest.mark.parametrize(("seed", "batches", "wide"), CASES)
def test_same_as_the_running_kernel(seed, batches, wide):
    workload = generate(seed, batches=batches, wide=wide)
    try:
        found = verify(workload, pages=True, events=True)
    except OracleError as error:
        if re.match("other processes|another program|.*does not repeat itself", str(error)):
            pytest.skip(str(error))
        raise
    assert found is None


def test_what_would_leave_traces_is_refused():
    vma = {"name": "v", "pages": 1, "contents": [0]}
    workload = {"name": "", "settings": {"use_zero_pages": 1}, "procs": [{"name": "a", "vmas": [vma]}],
                "steps": [{"op": "madvise", "proc": "a", "vma": "v", "advice": "wipeonfork"}, {"op": "fork", "proc": "a", "child": "b"}]}
    assert leaves_traces(workload)
    with pytest.raises(OracleError, match="until the next boot"):
        run_kernel(workload)
