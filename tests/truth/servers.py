# SPDX-License-Identifier: GPL-2.0-only
"""Programs of the kind that operators run, filled and at rest."""

from __future__ import annotations

import os
import pwd
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from running import Programs, at_rest, said, wait_until

ARRAYS = """
import sys
import numpy
who, mib = map(int, sys.argv[1:])
same = numpy.random.default_rng(1).integers(0, 1 << 60, mib << 16)              # equal in all processes
own = numpy.random.default_rng(100 + who).integers(0, 1 << 60, mib << 15)
zeros = numpy.zeros(mib << 14)
zeros[::64] = 0.0
print("ready", flush=True)
sys.stdin.read()
"""

# A server that has loaded its application, and forks workers, which serve: each writes to a part of what was loaded, and has memory of its
# own.
PRELOADED = """
import mmap, os, random, sys
mib, workers = map(int, sys.argv[1:])
random.seed(1)
loaded = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
loaded.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, mib << 20, 4096):        # of the pages, a sixteenth is there twice
    number = at // 4096
    loaded[at:at + 4096] = random.Random(number - 16 if number % 256 == 16 else number).randbytes(4096)
objects = [str(number) * 20 for number in range(mib * 500)]
read, write = os.pipe()
life, death = os.pipe()
for worker in range(workers):
    if os.fork() == 0:
        os.close(death)
        for at in range(worker * 4096, mib << 20, 4096 * 64):
            loaded[at] = 1                                      # the same in all who write here
        buffer = bytearray(random.Random(7).randbytes(1 << 20)) + random.Random(worker).randbytes(1 << 20)
        for each in objects[worker * 100:: 16]:
            pass                                                # reference counts are written to
        os.write(write, b"x")
        os.read(life, 1)                                            # until the server ends, however it does
        os._exit(0)
for worker in range(workers):
    os.read(read, 1)
print("ready", flush=True)
sys.stdin.read()
"""

QUERIES = """
set work_mem = '16MB';
create temp table t as select i, md5(i::text) from generate_series(1, 20000) i;
select count(*) from (select * from t order by 2) x;
select count(*) from (select relname, attname from pg_class join pg_attribute on attrelid = pg_class.oid) x;
select 'ready';
"""

NODE = """
const kept = [];
for (let i = 0; i < 200000; i++) kept.push({number: i, text: 'row ' + i});
const buffer = Buffer.alloc(16 << 20);
for (let i = 0; i < buffer.length; i += 4) buffer.writeUInt32LE((i / 8192 | 0) * 2654435761 % 4294967296, i);
console.log('ready');
process.stdin.on('data', () => {});
"""

JAVA = """
import java.util.*;
public class Kept {
    public static void main(String[] arguments) throws Exception {
        Map<Integer, String> kept = new HashMap<>();
        for (int i = 0; i < 200000; i++) kept.put(i, "row " + i);
        System.gc();
        System.out.println("ready");
        System.in.read();
    }
}
"""


def redis(programs: Programs, path: str, folder: Path, keys: int = 50_000) -> list[int]:
    """Two servers with the same values for half of the keys. They give memory back, and make their tables larger, at once and not later."""
    for number in range(2):
        address = folder / f"redis{number}"
        options = ("--port", 0, "--unixsocket", address, "--save", "", "--dir", folder, "--activerehashing", "no")
        environment = {"MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0"}
        programs.start(path, *options, env=environment, stdout=subprocess.DEVNULL)
        client = socket.socket(socket.AF_UNIX)

        def connected(client: socket.socket = client, address: Path = address) -> bool:
            return client.connect_ex(str(address)) == 0

        with client:
            wait_until(connected, "redis does not answer")
            lines = client.makefile("rb")
            for key in range(keys):
                value = random.Random(key if key < keys // 2 else key + number * keys).randbytes(1000)
                client.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\nkey:%d\r\n$1000\r\n%s\r\n" % (len(f"key:{key}"), key, value))
                if key % 100 == 99:
                    assert {lines.readline() for _ in range(100)} == {b"+OK\r\n"}
    pids = programs.pids()
    at_rest(pids)
    return pids


def arrays(programs: Programs, huge: bool, mib: int = 32) -> list[int]:
    """Three processes with arrays of numpy, which asks for huge pages by itself."""
    for who in range(3):
        environment = {"NUMPY_MADVISE_HUGEPAGE": str(int(huge)), "OPENBLAS_NUM_THREADS": "1"}
        programs.start(sys.executable, "-c", ARRAYS, who, mib, env=environment)
    for process in programs.started:
        said(process)
    return programs.pids()


def preloaded(programs: Programs, mib: int, workers: int) -> list[int]:
    said(programs.start(sys.executable, "-c", PRELOADED, mib, workers))
    pids = programs.pids()
    assert len(pids) == workers + 1
    at_rest(pids)
    return pids


def postgres(programs: Programs, clients: Programs, folder: Path, binaries: Path, connections: int = 12) -> list[int]:
    """A server with connections that have sorted and read the catalogue, and stay open. The folder must be one that its user may enter."""
    user = None
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        user = (entry.pw_uid, entry.pw_gid)
        os.chown(folder, *user)
    with Programs() as tools:
        data = folder / "data"
        quiet: dict[str, Any] = {"user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        assert tools.start(binaries / "initdb", "-D", data, "-A", "trust", "--no-sync", mergeable=False, **quiet).wait() == 0
        options = [f"--{name}" for name in ("listen_addresses=", "shared_buffers=64MB", "fsync=off", "autovacuum=off")]
        programs.start(binaries / "postgres", "-D", data, "-k", folder, "-p", 7120, *options, **quiet)
        address = ("-h", folder, "-p", 7120)
        wait_until((folder / ".s.PGSQL.7120").exists, "PostgreSQL does not start")
        wait_until(lambda: tools.start(binaries / "pg_isready", *address, mergeable=False).wait() == 0, "PostgreSQL does not answer")
    for _ in range(connections):
        client = clients.start(binaries / "psql", "-q", "-A", "-t", *address, "-U", "postgres", "postgres", mergeable=False)
        assert client.stdin
        client.stdin.write(QUERIES)
        client.stdin.flush()
        said(client)
    pids = programs.pids()
    assert len(pids) > connections
    at_rest(pids)
    return pids


def node(programs: Programs, path: str) -> list[int]:
    for _ in range(2):
        said(programs.start(path, "-e", NODE))
    pids = programs.pids()
    at_rest(pids)
    return pids


def java(programs: Programs, path: str, folder: Path) -> list[int]:
    (folder / "Kept.java").write_text(JAVA)
    for _ in range(2):
        said(programs.start(path, "-Xmx128m", "-XX:+UseSerialGC", folder / "Kept.java"))
    pids = programs.pids()
    at_rest(pids, 8.0)  # every 5 s, a JVM gives back what its compilers do not need any more
    return pids
