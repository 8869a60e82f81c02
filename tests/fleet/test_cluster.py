# SPDX-License-Identifier: GPL-2.0-only
"""The same numbers from a Dask cluster of two worker processes, also when one of them is killed midway."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("distributed")
from distributed import Client, LocalCluster
from pyarrow import parquet

import ksm.fleet
from ksm.fleet.engines.steps import Options
from ksm.fleet.files import FleetError, open_fleet
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
    monkeypatch.setattr("ksm.fleet.asking.bits_of", lambda *_: 1)
    there = ksm.fleet.report(
        [str(few_folder)], tenants={"blue": ["vm00*"]}, engine="dask", scheduler=cluster.scheduler_address, memory="1G", temp=str(tmp_path)
    )
    assert there.json() == here
    matrix = ksm.fleet.matrix([str(few_folder)], engine="dask", scheduler=cluster.scheduler_address, temp=str(tmp_path))
    assert matrix.json() == ksm.fleet.matrix([str(few_folder)]).json()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["reading fingerprints", pytest.param("comparing", marks=pytest.mark.slow)])
def test_a_worker_is_killed(cluster, few_folder, tmp_path, monkeypatch, when):
    """The numbers are the same, and what the worker had begun is done by another one. Workers have another current folder."""
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr("ksm.fleet.asking.BATCH", 1000)
    monkeypatch.setattr("ksm.fleet.asking.bits_of", lambda *_: 2)
    options = Options("dask", 1 << 30, None, tmp_path.name, cluster.scheduler_address)
    named = os.path.relpath(few_folder)
    killed = []

    def progress(what, done, total):
        if what == when and done == total // 4 and not killed:
            killed.append(worker_of(cluster))
            os.kill(killed[0], signal.SIGKILL)

    found = make_report(open_fleet([named]), options, progress=progress)
    assert as_json(found) == ksm.fleet.report([named]).json()
    assert len(killed) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_goes_wrong_on_a_worker_is_one_line(cluster, few_folder, tmp_path):
    for path in few_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    bad = tmp_path / "host03.parquet"
    column = parquet.read_metadata(bad).row_group(0).column(2)
    data = bytearray(bad.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 20] ^= 0xFF
    bad.write_bytes(data)
    with pytest.raises(OSError, match=r"host03\.parquet: damaged"):
        ksm.fleet.report([str(tmp_path)], engine="dask", scheduler=cluster.scheduler_address)


@contextmanager
def running(folder, *words):
    """A command of dask, which ends with the test."""
    with subprocess.Popen([sys.executable, "-m", *words], stderr=subprocess.DEVNULL, cwd=folder) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.slow
def test_a_scheduler_that_dies(few_folder, tmp_path):
    """One line, and no temporary file; one also says that there are no workers."""
    (tmp_path / "temp").mkdir()
    file = tmp_path / "scheduler.json"
    command = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    with running(tmp_path, *command) as scheduler:
        while not file.exists():
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        with pytest.raises(OSError, match="a cluster without workers"):
            ksm.fleet.report([str(few_folder)], engine="dask", scheduler=address)
        with running(tmp_path, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"):
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
            options = Options("dask", 1 << 30, None, str(tmp_path / "temp"), address)
            with pytest.raises(FleetError, match="the cluster has gone"):
                make_report(open_fleet([str(few_folder)]), options, progress=lambda what, done, total: scheduler.kill())
    assert list((tmp_path / "temp").iterdir()) == []


def worker_of(cluster):
    """The process of a worker that is at work."""
    at_work = [worker for worker in cluster.scheduler.workers.values() if worker.processing]
    [nanny] = [nanny for nanny in cluster.workers.values() if nanny.worker_address == at_work[0].address]
    return nanny.pid
