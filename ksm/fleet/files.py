# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""The fingerprint files of a fleet: which there are, whether they can be compared, and which source is on which host, and whose."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from glob import glob, has_magic
from typing import Any, NamedTuple

from ksm.host.files import FileError, open_to_read, read_file
from ksm.host.text import printable
from ksm.rows.foot import TAIL
from ksm.rows.format import MOST_FOOT, Head, OtherRowsError, RowsError
from ksm.rows.read import RowsFile

SUFFIX = ".parquet"  # of the files of a folder that count
LARGEST_CSV = 64 << 20  # bytes
NO_TENANT = "no tenant"  # the name of all sources that no tenant has


class FleetError(Exception):
    """A fleet cannot be asked. The text is one line."""


class OtherFileError(FleetError):
    """A fingerprint file that was made in another way than this ksm reads."""


class Member(NamedTuple):
    """A source of a fleet. `number` counts from 0; `name` is HOST:OWN, and no other source has it; `own` is its name in the file.

    `file` is the file as the fleet names it, and `place` the source's place there. `pages` are its rows.
    """

    number: int
    name: str
    own: str
    host: str
    tenant: str
    kind: str
    file: str
    place: int
    pages: int


class Fleet(NamedTuple):
    """Sources of fingerprint files that were made alike. `hashed` says how; `files` are the files, each once."""

    members: list[Member]
    files: list[str]
    hashed: str
    has_tenants: bool

    @property
    def hosts(self) -> list[str]:
        """The names of all hosts, in the order of their first source."""
        return list(dict.fromkeys(member.host for member in self.members))

    @property
    def tenants(self) -> list[str]:
        """The names of all tenants, in the order of their first source."""
        return list(dict.fromkeys(member.tenant for member in self.members))

    @property
    def pages(self) -> int:
        return sum(member.pages for member in self.members)


def is_address(text: str) -> bool:
    """Whether fsspec is to be asked for a file."""
    return "://" in text


def files_of(texts: Sequence[str]) -> list[str]:
    """The files that are meant: a file, a folder's *.parquet, a pattern, or an address. Each once, in the order of names. FleetError."""
    found: dict[str, str] = {}
    for text in texts:
        if is_address(text):
            some = addresses_of(text)
        elif os.path.isdir(text):
            some = sorted(os.path.join(text, name) for name in os.listdir(text) if name.endswith(SUFFIX))
        elif has_magic(text) and not os.path.exists(text):
            some = sorted(glob(text))
        else:
            some = [text]
        if not some:
            raise FleetError(f"{text}: no file {'of this name' if has_magic(text) else f'in it whose name ends with {SUFFIX}'}")
        for each in some:
            found.setdefault(each if is_address(each) else os.path.realpath(each), each)
    return list(found.values())


def filesystem(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path there. FleetError."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise FleetError(f"{address}: an address needs fsspec: pip install 'ksm[fleet]'") from None
    try:
        system, path = url_to_fs(address)
    except (ImportError, ValueError, OSError) as error:
        raise FleetError(f"{address}: {one_line(error)}") from None
    return system, path


def addresses_of(text: str) -> list[str]:
    with reached(text):
        system, path = filesystem(text)
        if has_magic(path):
            some = sorted(system.glob(path))
        elif system.isdir(path):
            some = sorted(name for name in system.ls(path, detail=False) if name.endswith(SUFFIX))
        else:
            some = [path]
        return [system.unstrip_protocol(each) for each in some]


@contextmanager
def reached(address: str) -> Iterator[None]:
    """What goes wrong between here and an object store, with the address. Each store has errors of its own."""
    try:
        yield
    except (FleetError, RowsError, FileError, MemoryError):
        raise
    except Exception as error:
        raise FleetError(f"{address}: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return printable(str(error).split("\n")[0])[:200] or type(error).__name__


@contextmanager
def open_rows(file: str, *, only_foot: bool = False, folder: str | None = None) -> Iterator[RowsFile]:
    """A fingerprint file of a fleet. FleetError with its name.

    What is behind an address is copied into a temporary file without a name in `folder`. With `only_foot` no more than the file's end is,
    and nothing but `head` may be asked for.
    """
    try:
        with fetched(file, only_foot, folder) if is_address(file) else opened(file) as fd:
            rows = RowsFile(fd, os.fstat(fd).st_size)
            try:
                yield rows
            finally:
                rows.close()
    except OtherRowsError as error:
        raise OtherFileError(f"{printable(file)}: {error}") from None
    except (RowsError, OSError) as error:
        raise FleetError(f"{printable(file)}: {error.strerror if isinstance(error, OSError) and error.strerror else error}") from None
    except FileError as error:
        raise FleetError(str(error)) from None


@contextmanager
def opened(path: str) -> Iterator[int]:
    fd = open_to_read(path)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def fetched(address: str, only_foot: bool, folder: str | None) -> Iterator[int]:
    """A copy of what is behind an address: a descriptor. Of the end alone, the copy has as many bytes, and holes in front."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        with reached(address):
            system, path = filesystem(address)
            if only_foot:
                size = system.size(path)
                tail = system.cat_file(path, start=max(0, size - TAIL), end=size)
                length = min(size, TAIL + min(MOST_FOOT, int.from_bytes(tail[:4], "little")))
                os.ftruncate(file.fileno(), size)
                os.pwrite(file.fileno(), system.cat_file(path, start=size - length, end=size), size - length)
            else:
                with system.open(path, "rb") as far:
                    while data := far.read(4 << 20):
                        file.write(data)
        yield file.fileno()


def open_fleet(texts: Sequence[str], *, placement: str | None = None, tenants: Mapping[str, Sequence[str]] | None = None) -> Fleet:
    """The fleet of these files. Nothing but the end of each file is read. FleetError, TypeError.

    `placement` is a file with the columns source and host, in place of the hosts that the files name. `tenants` has the sources of each
    tenant.
    """
    if isinstance(texts, str) or any(isinstance(each, str) for each in (tenants or {}).values()):
        raise TypeError("files, and the sources of a tenant, are sequences of str")
    files = files_of(texts)
    if not files:
        raise FleetError("no file")
    members: list[Member] = []
    first: tuple[str, Head] | None = None
    seen: dict[str, str] = {}
    for file in files:
        try:
            with open_rows(file, only_foot=True) as rows:
                head = rows.head
        except OtherFileError as error:
            others = [each for each in files if each != file]
            raise FleetError(f"{error}: it cannot be compared with {printable(others[0])}" if others else str(error)) from None
        if first is None:
            first = file, head
        elif head.hashed != first[1].hashed:
            raise FleetError(
                f"{printable(file)} has fingerprints of {head.hashed}, and {printable(first[0])} of {first[1].hashed}: "
                "they cannot be compared"
            )
        for place, source in enumerate(head.sources):
            name = f"{head.host}:{source.name}"
            if name in seen:
                both = f"{printable(seen[name])} and {printable(file)} both have {printable(name)}"
                raise FleetError(f"{both}: of a source, a fleet has one moment")
            seen[name] = file
            members.append(Member(len(members), name, source.name, head.host, NO_TENANT, source.kind, file, place, source.pages))
    if not members:
        raise FleetError(f"{printable(files[0])}: a fingerprint file without sources")
    assert first is not None
    if placement is not None:
        members = with_hosts(members, placement)
    if tenants:
        members = with_tenants(members, tenants)
    return Fleet(members, files, first[1].hashed, bool(tenants))


def finder(members: Sequence[Member]) -> Callable[[str], list[Member]]:
    """A function that finds sources by what a user writes: HOST:OWN, OWN, or a pattern of either."""
    by_name: dict[str, list[Member]] = {}
    for member in members:
        by_name.setdefault(member.name, []).append(member)
        by_name.setdefault(member.own, []).append(member)

    def find(text: str) -> list[Member]:
        if text in by_name or not has_magic(text):
            return by_name.get(text, [])
        return [member for member in members if fnmatchcase(member.name, text) or fnmatchcase(member.own, text)]

    return find


def rows_of_csv(path: str, columns: Sequence[str], more: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file with a head: the number of each line, and the values of these columns. FleetError.

    Columns of `more` need not be there, and are "" then.
    """
    try:
        data = read_file(path, LARGEST_CSV)
        text = data.decode("utf-8-sig")
    except FileError as error:
        raise FleetError(str(error)) from None
    except UnicodeDecodeError as error:
        raise FleetError(f"{path}: it is not UTF-8: byte {error.start}") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        if missing := [name for name in columns if name not in head]:
            raise FleetError(f"{path}: no column {missing[0]!r}: its first line has to name {', '.join(columns)}")
        places = [head.index(name) if name in head else None for name in (*columns, *more)]
        for row in reader:
            if not row:
                continue
            if len(row) != len(head):
                raise FleetError(f"{path}:{reader.line_num}: {len(row)} values, and {len(head)} columns")
            yield reader.line_num, ["" if place is None else row[place].strip() for place in places]
    except csv.Error as error:
        raise FleetError(f"{path}:{reader.line_num}: {error}") from None


def with_hosts(members: list[Member], path: str) -> list[Member]:
    """The sources on the hosts that a file says. A source that it does not name stays where it is."""
    find = finder(members)
    hosts: dict[int, str] = {}
    for line, (source, host) in rows_of_csv(path, ("source", "host")):
        found = find(source)
        if not found:
            raise FleetError(f"{path}:{line}: no source {printable(source)!r} in the fleet")
        if not host:
            raise FleetError(f"{path}:{line}: {printable(source)} has no host")
        for member in found:
            if hosts.setdefault(member.number, host) != host:
                raise FleetError(f"{path}:{line}: {printable(member.name)} is on {printable(hosts[member.number])} already")
    return [member._replace(host=hosts.get(member.number, member.host)) for member in members]


def with_tenants(members: list[Member], tenants: Mapping[str, Sequence[str]]) -> list[Member]:
    """The sources with their tenants."""
    if NO_TENANT in tenants:
        raise FleetError(f"{NO_TENANT!r} is the name of all other sources")
    find = finder(members)
    owned: dict[int, str] = {}
    for name, texts in tenants.items():
        for text in texts:
            found = find(text)
            if not found:
                raise FleetError(f"tenant {printable(name)}: no source {printable(text)!r} in the fleet")
            for member in found:
                owner = owned.setdefault(member.number, name)
                if owner != name:
                    raise FleetError(f"{printable(member.name)} is {printable(owner)}'s, and cannot be {printable(name)}'s, too")
    return [member._replace(tenant=owned.get(member.number, NO_TENANT)) for member in members]
