# SPDX-License-Identifier: GPL-2.0-only
"""Other kernels, booted by QEMU, and the port do the same.

    tox -e kernels              all workloads of every kernel, for some hours
    KSM_GUEST_WORKLOADS=30 pytest -m kernel tests/guests      some of each

A kernel's package is downloaded by apt, and not kept. That of 7.3 is in a newer suite of the mirror, and only until a newer kernel comes:
then its tests are skipped.
"""

import importlib.util
import itertools
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from ksm.oracle.generate_breaking import BREAKING_SEEDS
from ksm.oracle.guest import QEMU, Guest, server
from ksm.oracle.seeds import fitting, generate
from ksm.oracle.verify import verify
from ksm.oracle.workload import OracleError

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
HERE = Path(__file__).parent  # a folder for each version has workloads that no older one runs to their end
NEEDED = bool(os.environ.get("CI"))
MOST = int(os.environ.get("KSM_GUEST_WORKLOADS", "0"))  # 0: all

NEWER = ("7.3",)  # kernels that a suite has for some weeks
MUTANTS = HERE.parent / "kernel" / "mutants"


def load(name):
    spec = importlib.util.spec_from_file_location(f"guest_mutants_{name}", MUTANTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutants = load("build")
GUEST_MUTANTS = load("table").GUEST_MUTANTS[:1 if MOST else None]

# Each kernel with so many nodes: the seeds of its workloads, which begin with those of every run.
RUNS = {
    ("6.12", 1): [1000, 1001, 709, *range(1000), *range(1002, 1050)],
    ("6.12", 2): [2000, 2015, 175, 2056, *range(500), *BREAKING_SEEDS[:100]],
    ("6.1", 1): [1000, *range(300), *range(1001, 1010)],
    ("6.1", 2): [47, 54, *range(60)],
    ("7.3", 1): [2, 0, 3, *range(300), *range(1000, 1020)],
    ("7.3", 2): [12, *range(50)],
}
FEWER = {("6.1", 2): 0, ("7.3", 1): 3, ("7.3", 2): 0}  # the most of a run that does not have all


def seeds_of(run):
    return RUNS[run][:min(MOST, FEWER.get(run, MOST))] if MOST else RUNS[run]


def booted(version, nodes):
    """A guest; the test is skipped, or fails in CI, where there can be none."""
    for program in (QEMU, server(), "busybox", "apt-get", "dpkg-deb"):
        if not shutil.which(program):
            (pytest.fail if NEEDED else pytest.skip)(f"{program} is missing")
    try:
        return Guest(version, nodes)
    except OracleError as error:
        gone = "apt knows no" in str(error) and version in NEWER
        (pytest.fail if (NEEDED and not gone) or "apt" not in str(error) else pytest.skip)(str(error))


@pytest.fixture(scope="module", params=filter(seeds_of, RUNS), ids=lambda run: f"{run[0]}-{run[1]}")
def guest(request):
    with booted(*request.param) as guest:
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


def shown(where):
    """A workload of the mutants' table."""
    if isinstance(where, str):
        return json.loads((MUTANTS.parent / "traps" / f"{where}.json").read_text())["workload"]
    return generate(where, nodes=2)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What the kernel does with the workloads that show the mutants: a folder with a file for each. The port does the same."""
    folder = tmp_path_factory.mktemp("outcomes")
    with booted("6.12", 2) as guest:
        for where in sorted({where for mutant in GUEST_MUTANTS for where in mutant.shown_by}, key=str):
            workload = shown(where)
            outcome = guest.run(workload)
            found = verify(workload, lambda _, outcome=outcome: outcome)
            assert found is None, found.report(str(where))
            (folder / f"{workload['name']}.json").write_text(json.dumps(outcome))
            (folder / f"{where}.workload").write_text(json.dumps(workload))
    return folder


@pytest.mark.parametrize("mutant", GUEST_MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_that_only_several_nodes_show(outcomes, mutant, tmp_path):
    code = f"import json, sys; print(open('{outcomes}/' + json.load(sys.stdin)['name'] + '.json').read())"
    against = shlex.join([sys.executable, "-c", code])
    folder = mutants.build(tmp_path, mutant)
    for where in mutant.shown_by:
        result = mutants.verify(folder, "--against", against, outcomes / f"{where}.workload")
        assert result.returncode == 1, result.stdout + result.stderr
