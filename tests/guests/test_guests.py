# SPDX-License-Identifier: GPL-2.0-only
"""Other kernels, booted by QEMU, and the port do the same.

    tox -e kernels              all workloads of every kernel, for some hours
    KSM_GUEST_WORKLOADS=30 pytest -m kernel tests/guests      some of each

A kernel's package is downloaded by apt, and not kept. That of 7.3 is in a newer suite of the mirror, and only until a newer kernel comes:
then its tests are skipped.
"""

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest

from ksm.oracle.guest import QEMU, Guest, server
from ksm.oracle.seeds import fitting, generate
from ksm.oracle.verify import verify
from ksm.oracle.workload import OracleError

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
HERE = Path(__file__).parent  # a folder for each version has workloads that no older one runs to their end
NEEDED = bool(os.environ.get("CI"))
MOST = int(os.environ.get("KSM_GUEST_WORKLOADS", "0"))  # 0: all

NEWER = ("7.3",)  # kernels that a suite has for some weeks

# Each kernel with so many nodes: the seeds of its workloads, which begin with those of every run.
RUNS = {
    ("6.12", 1): [1000, 1001, *range(1000), *range(1002, 1050)],
    ("6.12", 2): [*range(500)],
    ("6.1", 1): [1000, *range(300), *range(1001, 1010)],
    ("7.3", 1): [2, 0, 3, *range(300), *range(1000, 1020)],
    ("7.3", 2): [*range(12), *range(13, 50)],  # 12: see tests/kernel/README.md
}
FEWER = {("7.3", 1): 3, ("7.3", 2): 0}  # the most of a run that does not have all


def seeds_of(run):
    return RUNS[run][:min(MOST, FEWER.get(run, MOST))] if MOST else RUNS[run]


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: f"{run[0]}-{run[1]}")
def guest(request):
    version, nodes = request.param
    if not seeds_of(request.param):
        pytest.skip("KSM_GUEST_WORKLOADS leaves none")
    for program in (QEMU, server(), "busybox", "apt-get", "dpkg-deb"):
        if not shutil.which(program):
            (pytest.fail if NEEDED else pytest.skip)(f"{program} is missing")
    try:
        guest = Guest(version, nodes)
    except OracleError as error:
        gone = "apt knows no" in str(error) and version in NEWER
        (pytest.fail if (NEEDED and not gone) or "apt" not in str(error) else pytest.skip)(str(error))
    with guest:
        yield guest


def test_a_guest_leaves_the_running_kernel_free(guest):
    """Its memory is not mergeable: else `ksm verify` could not use the KSM of this computer meanwhile."""
    counters = Path(f"/proc/{guest.qemu.pid}/ksm_stat")
    if counters.exists() and "ksm_mergeable" in (text := counters.read_text()):
        assert "ksm_mergeable: no" in text


def test_same_as_another_kernel(guest, request):
    version, nodes = request.node.callspec.params["guest"]
    assert guest.kernel.release.startswith(version)
    seeds = (fitting(generate(seed, nodes=nodes), guest.files) for seed in seeds_of((version, nodes)))
    own = (json.loads(file.read_text()) for file in sorted((HERE / version).glob("*.json")))
    for workload in itertools.chain(own, seeds):
        found = verify(workload, guest.run)
        assert found is None, found.report(f"{workload['name']}, {nodes} nodes, Linux {guest.kernel.release}")
