# SPDX-License-Identifier: GPL-2.0-only
"""What ksm scan says of servers and other programs is what the running kernel then does. pytest -s prints both."""

import tempfile
from pathlib import Path

import pytest
import servers
from columns import compare
from running import Programs, predicted

pytestmark = pytest.mark.kernel


def check(what, kernel, pids, *options):
    report = predicted(pids, *options)
    assert compare(what, report, kernel.merge(pids)) == []


def test_redis_twice(running, program, tmp_path):
    path = program("redis-server", "redis-server")
    with running() as kernel, Programs() as programs:
        check("redis, twice", kernel, servers.redis(programs, path, tmp_path))


@pytest.mark.parametrize("huge", [False, True], ids=["small pages", "huge pages"])
def test_numpy(huge, running):
    pytest.importorskip("numpy")
    with running() as kernel, Programs() as programs:
        check(f"numpy, in {'huge' if huge else 'small'} pages", kernel, servers.arrays(programs, huge))


@pytest.mark.parametrize("mib", [32, *(pytest.param(mib, marks=pytest.mark.slow) for mib in (200, 400))])
def test_a_preloaded_server_with_16_forked_workers(mib, running):
    with running() as kernel, Programs() as programs:
        check(f"a server with {mib} MiB and 16 forked workers", kernel, servers.preloaded(programs, mib, 16))


def test_postgresql_with_connections(running, program):
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    binaries = found[-1].parent if found else Path(program("postgres", "postgresql")).parent
    # tmp_path is in a folder that is root's alone.
    with running() as kernel, tempfile.TemporaryDirectory() as folder, Programs() as programs, Programs() as clients:
        check("PostgreSQL, 12 connections", kernel, servers.postgres(programs, clients, Path(folder), binaries))


def test_node_twice(running, program):
    path = program("node", "nodejs")
    with running() as kernel, Programs() as programs:
        check("node, twice", kernel, servers.node(programs, path))


@pytest.mark.slow
def test_java_twice(running, program, tmp_path):
    path = program("java", "default-jre-headless", needed=False)
    with running() as kernel, Programs() as programs:
        check("java, twice", kernel, servers.java(programs, path, tmp_path))
