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
from ksm.fleet.queries import PREPARE, Query, sampled
from ksm.host.text import printable

if TYPE_CHECKING:
    import duckdb
    import pyarrow

NEEDED = "a fleet needs duckdb and pyarrow: pip install 'ksm[fleet]'"
OWN = 192 << 20  # bytes that a process has beside what DuckDB counts: the interpreter, Arrow and the buffers of a file
LEAST = 96 << 20  # bytes that DuckDB needs at least

# Parquet has no numbers of 128 bits.
HALVES = "(f >> 64)::UBIGINT AS high, (f & 18446744073709551615::UHUGEINT)::UBIGINT AS low"

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
    except (RuntimeError, duckdb.InterruptException) as error:
        if "interrupt" in str(error).lower():  # what DuckDB makes of Ctrl-C
            raise KeyboardInterrupt from None
        raise
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
    folder = new_folder(work)
    broken: list[BaseException] = []

    def caught() -> Iterator[pyarrow.RecordBatch]:
        # DuckDB makes a text of what is raised here.
        try:
            yield from batches(job.members, schema, room.folder)
        except BaseException as error:
            broken.append(error)
            raise

    with connected(room) as con:
        con.register("rows", pa.RecordBatchReader.from_batches(schema, caught()))
        try:
            part = f"((f >> 64)::UBIGINT >> {64 - job.bits})::UINTEGER" if job.bits else "0::UINTEGER"
            counts = f"WHERE {sampled('f', job.sample)}" if job.sample > 1 else ""
            query = f"SELECT {HALVES}, s, count(*)::UINTEGER AS n, min(c) AS c, {part} AS part FROM rows {counts} GROUP BY s, f"
            write(con, query, folder, ", PARTITION_BY (part)")
        except BaseException:
            if broken:
                raise broken[0] from None
            raise
    return folder


class Asked(NamedTuple):
    """What is asked: the folders that spread() has written; number, host, tenant and group of each source, with -1 for no group; queries;
    and whether what `common` has is written into a folder, too. That will do in place of the others, for queries that need no more.
    """

    folders: list[str]
    places: list[tuple[int, int, int, int]]
    queries: list[Query]
    keep: bool = False


class Answer(NamedTuple):
    """Rows of each query by its name, or a table; and the folder with what `common` has."""

    found: dict[str, Any]
    folder: str | None


def ask(part: int, asked: Asked, room: Room, work: str) -> Answer:
    """The answers of one part."""
    for folder in asked.folders:
        if not os.path.isdir(folder):
            raise unseen(folder)
    own = [os.path.join(folder, f"part={part}") for folder in asked.folders]
    files = [os.path.join(folder, name) for folder in own if os.path.isdir(folder) for name in os.listdir(folder)]
    with connected(room) as con:
        con.execute("CREATE TEMP TABLE held (f UHUGEINT, s UINTEGER, n UINTEGER, c UTINYINT)")
        if files:
            read = "read_parquet($1, hive_partitioning = false)"
            con.execute(f"INSERT INTO held SELECT (high::UHUGEINT << 64) | low, s, n, c FROM {read}", [files])
        con.execute("CREATE TEMP TABLE place (s UINTEGER, h UINTEGER, t UINTEGER, g INTEGER)")
        columns = [[row[column] for row in asked.places] for column in range(4)]
        con.execute("INSERT INTO place SELECT unnest($1), unnest($2), unnest($3), nullif(unnest($4), -1)", columns)
        for text in PREPARE:
            con.execute(text)
        kept = None
        if asked.keep:
            kept = new_folder(work)
            os.mkdir(os.path.join(kept, f"part={part}"))
            write(con, f"SELECT {HALVES}, s, n, c FROM common", os.path.join(kept, f"part={part}", "common.parquet"), "")
        found: dict[str, Any] = {}
        for query in asked.queries:
            answer = con.sql(query.text)
            found[query.name] = answer.to_arrow_table() if query.table else answer.fetchall()
        return Answer(found, kept)


def new_folder(work: str) -> str:
    """FleetError where there is no working folder, rather than one that only this process sees."""
    folder = os.path.join(work, uuid.uuid4().hex)
    try:
        os.mkdir(folder)
    except FileNotFoundError:
        raise unseen(work) from None
    except OSError as error:
        raise FleetError(f"{folder}: {error.strerror}") from None
    return folder


def unseen(folder: str) -> FleetError:
    return FleetError(f"{folder}: it is not there for a step: all workers have to see the folder of --temp")


def write(con: duckdb.DuckDBPyConnection, query: str, path: str, options: str) -> None:
    con.execute(f"COPY ({query}) TO '{path.replace(chr(39), 2 * chr(39))}' (FORMAT parquet, COMPRESSION uncompressed{options})")


def forget(work: str) -> None:
    shutil.rmtree(work, ignore_errors=True)
