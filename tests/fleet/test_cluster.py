# SPDX-License-Identifier: GPL-2.0-only
"""The same numbers from a Dask cluster of two worker processes, also when one of them is killed midway."""

import os
import signal

import pytest

pytest.importorskip("distributed")
from distributed import LocalCluster

import ksm.fleet
from ksm.fleet.engines.steps import Options
from ksm.fleet.files import open_fleet
from ksm.fleet.sharing import make_report
from ksm.fleet.sharing_text import as_json

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dask")
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(folder), silence_logs=50,
    ) as cluster:  # fmt: skip
        yield cluster


@pytest.mark.slow
def test_cluster_says_what_duckdb_says(cluster, few_folder, tmp_path, monkeypatch):
    """Also where there are several jobs and parts."""
    here = ksm.fleet.report([str(few_folder)], tenants={"blue": ["vm00*"]}).json()
    monkeypatch.setattr("ksm.fleet.asking.BATCH", 4000)
    monkeypatch.setattr("ksm.fleet.asking.bits_of", lambda rows, memory: 1)
    there = ksm.fleet.report(
        [str(few_folder)], tenants={"blue": ["vm00*"]}, engine="dask", scheduler=cluster.scheduler_address, memory="1G", temp=str(tmp_path)
    )
    assert there.json() == here
    matrix = ksm.fleet.matrix([str(few_folder)], engine="dask", scheduler=cluster.scheduler_address, temp=str(tmp_path))
    assert matrix.json() == ksm.fleet.matrix([str(few_folder)]).json()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["reading fingerprints", pytest.param("comparing", marks=pytest.mark.slow)])
def test_a_worker_is_killed(cluster, few_folder, tmp_path, monkeypatch, when):
    """The numbers are the same, and what the worker had begun is done by another one."""
    monkeypatch.setattr("ksm.fleet.asking.BATCH", 1000)
    monkeypatch.setattr("ksm.fleet.asking.bits_of", lambda rows, memory: 2)
    options = Options("dask", 1 << 30, None, str(tmp_path), cluster.scheduler_address)
    killed = []

    def progress(what, done, total):
        if what == when and done == total // 4 and not killed:
            killed.append(worker_of(cluster))
            os.kill(killed[0], signal.SIGKILL)

    found = make_report(open_fleet([str(few_folder)]), options, progress=progress)
    assert as_json(found) == ksm.fleet.report([str(few_folder)]).json()
    assert len(killed) == 1
    assert list(tmp_path.iterdir()) == []


def worker_of(cluster):
    """The process of a worker that is at work."""
    at_work = [worker for worker in cluster.scheduler.workers.values() if worker.processing]
    [nanny] = [nanny for nanny in cluster.workers.values() if nanny.worker_address == at_work[0].address]
    return nanny.pid
