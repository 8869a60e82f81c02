# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""The two steps of every engine. Each is a function that may run in any process that sees the files and the working folder.

spread() reads some sources, and writes what each holds into the working folder, divided into parts by the first bits of fingerprints.
ask() reads one part of all that was written, and runs queries over it. Whoever calls them adds up.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.fleet.files import FleetError, Member, open_rows
from ksm.fleet.queries import PREPARE, Query
from ksm.host.text import printable

if TYPE_CHECKING:
    import duckdb
    import pyarrow

NEEDED = "a fleet needs duckdb and pyarrow: pip install 'ksm[fleet]'"
OWN = 192 << 20  # bytes that a process has beside what DuckDB counts: the interpreter, Arrow and the buffers of a file
LEAST = 96 << 20  # bytes that DuckDB needs at least

Rows = list[tuple[int, ...]]
Progress = Callable[[str, int, int], None]


class Options(NamedTuple):
    """How a fleet is asked. `memory` is that of this process, or of each worker; in bytes. `temp` is a folder for temporary files, which
    the workers of a cluster have to see, too; `scheduler` is the address of one.
    """

    engine: str = "duckdb"
    memory: int | None = None
    threads: int | None = None
    temp: str | None = None
    scheduler: str | None = None


class Room(NamedTuple):
    """What a step may use: bytes of memory, all in all, or None for what DuckDB takes; threads; a folder for what does not fit."""

    memory: int | None
    threads: int | None
    folder: str


class Job(NamedTuple):
    """Sources that are spread together. Of `sample` fingerprints, one counts; there are 2^bits parts."""

    members: list[Member]
    sample: int
    bits: int


def need_duckdb() -> None:
    """FleetError without the packages."""
    try:
        import duckdb  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError:
        raise FleetError(NEEDED) from None


@contextmanager
def connected(room: Room) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of one's own, which asks nothing of a network. FleetError for what goes wrong in it."""
    need_duckdb()
    import duckdb

    config: dict[str, Any] = {
        "temp_directory": room.folder, "preserve_insertion_order": False, "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }  # fmt: skip
    if room.memory is not None:
        config["memory_limit"] = f"{max(LEAST, room.memory - OWN)}B"
    if room.threads is not None:
        config["threads"] = room.threads
    con = duckdb.connect(config=config)
    try:
        yield con
    except duckdb.OutOfMemoryException:
        raise FleetError("out of memory: --memory has to be larger, or there is no room for temporary files (--temp)") from None
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.Error as error:
        raise FleetError(printable(str(error).split("\n")[0])[:300]) from None
    finally:
        con.close()


def batches(members: Sequence[Member], schema: pyarrow.Schema, folder: str) -> Iterator[pyarrow.RecordBatch]:
    """Fingerprint, class and number of the source, for each page. FleetError with the file's name."""
    import pyarrow as pa

    at = 0
    while at < len(members):
        file = members[at].file
        with open_rows(file, folder=folder) as rows:
            while at < len(members) and members[at].file == file:
                number = pa.scalar(members[at].number, pa.uint32())
                for fingerprints, kinds in rows.columns(members[at].place):
                    yield pa.RecordBatch.from_arrays([fingerprints, kinds, pa.repeat(number, len(kinds))], schema=schema)
                at += 1


def spread(job: Job, room: Room, work: str) -> str:
    """Spread sources into a new folder of the working folder, and return its name.

    What an attempt leaves that ends early has a folder of its own, which nobody reads.
    """
    import pyarrow as pa

    # How Arrow says that 16 bytes are a number of 128 bits, which DuckDB takes without a copy
    number = {"ARROW:extension:name": "arrow.opaque", "ARROW:extension:metadata": '{"type_name":"uhugeint","vendor_name":"DuckDB"}'}
    schema = pa.schema([pa.field("f", pa.binary(16), metadata=number), pa.field("c", pa.uint8()), pa.field("s", pa.uint32())])
    folder = os.path.join(work, uuid.uuid4().hex)
    broken: list[Exception] = []

    def caught() -> Iterator[pyarrow.RecordBatch]:
        # DuckDB makes a text of what is raised here.
        try:
            yield from batches(job.members, schema, room.folder)
        except Exception as error:
            broken.append(error)
            raise

    with connected(room) as con:
        con.register("rows", pa.RecordBatchReader.from_batches(schema, caught()))
        try:
            # Parquet has no numbers of 128 bits.
            con.execute(f"""
                COPY (
                    SELECT (f >> 64)::UBIGINT AS high, (f & 18446744073709551615::UHUGEINT)::UBIGINT AS low, s, count(*)::UINTEGER AS n,
                           min(c) AS c, {f"((f >> 64)::UBIGINT >> {64 - job.bits})::UINTEGER" if job.bits else "0::UINTEGER"} AS part
                    FROM rows {f"WHERE (f & 18446744073709551615::UHUGEINT) % {job.sample} = 0" if job.sample > 1 else ""}
                    GROUP BY s, f
                ) TO '{folder.replace("'", "''")}' (FORMAT parquet, PARTITION_BY (part), COMPRESSION uncompressed)""")
        except Exception:
            if broken:
                raise broken[0] from None
            raise
    return folder


def ask(part: int, folders: Sequence[str], places: Sequence[tuple[int, ...]], queries: Sequence[Query], room: Room) -> dict[str, Rows]:
    """The answers of one part. `places` has number, host, tenant and group of each source; -1 for no group."""
    own = [os.path.join(folder, f"part={part}") for folder in folders]
    files = [os.path.join(folder, name) for folder in own if os.path.isdir(folder) for name in os.listdir(folder)]
    if not files:
        return {query.name: [] for query in queries}
    with connected(room) as con:
        con.execute(
            "CREATE TEMP TABLE held AS SELECT (high::UHUGEINT << 64) | low AS f, s, n, c FROM read_parquet($1, hive_partitioning = false)",
            [files],
        )
        con.execute("CREATE TEMP TABLE place (s UINTEGER, h UINTEGER, t UINTEGER, g INTEGER)")
        con.execute(
            "INSERT INTO place SELECT unnest($1), unnest($2), unnest($3), nullif(unnest($4), -1)",
            [[row[column] for row in places] for column in range(4)],
        )
        for text in PREPARE:
            con.execute(text)
        return {query.name: con.execute(query.text).fetchall() for query in queries}


def forget(work: str) -> None:
    shutil.rmtree(work, ignore_errors=True)
