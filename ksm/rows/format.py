# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""What a fingerprint file is: its columns, and the JSON in its metadata that says where the pages are from."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.fingerprint.classes import CLASSES
from ksm.host.json_file import parse_json
from ksm.rows import KEYED_HASH, PLAIN_HASH, hashed

if TYPE_CHECKING:
    import pyarrow

MAGIC = b"PAR1"
ENTRY = b"ksm"  # of the file's metadata: the head, in JSON
FORMAT = "ksm fingerprints 1"
COLUMNS = ("source", "address", "fingerprint", "checksum", "class")

GROUP = 1 << 18  # rows of a row group: those of a GiB of memory
MOST_GROUP = 1 << 20  # rows of one that is read
MOST_FOOT = 8 << 20  # bytes of the footer
MOST_HEAD = 4 << 20  # bytes of the head
MOST_PAGE = 64 << 20  # bytes of a page of Parquet; those that are written have a MiB
MOST_NAME = 4096  # characters of a source's name, and of other texts
MOST_KIND = 16


class RowsError(Exception):
    """A fingerprint file cannot be read or written. The text is one line, without the file's name."""


class OtherRowsError(RowsError):
    """A file that was made in another way than this ksm reads: in another format, of other pages, with another hash."""


class SourceHead(NamedTuple):
    """What a file says of one of its sources. `pages` are its rows, one source after the other; the rest is as in ksm.sources.Source."""

    name: str
    kind: str
    pages: int = 0
    holes: int = 0
    zero_holes: int = 0
    shared: int = 0
    hidden: int = 0
    notes: tuple[str, ...] = ()


COUNTS = ("pages", "holes", "zero_holes", "shared", "hidden")


class Head(NamedTuple):
    """What a file says of itself. `key` is the name of the key, or "" for a hash without one; `time` is in UTC, as ISO 8601 has it."""

    host: str
    time: str
    hash: str
    key: str
    version: str
    sources: list[SourceHead]

    @property
    def hashed(self) -> str:
        """How the fingerprints were made."""
        return hashed(self.key)


def need_pyarrow() -> None:
    """RowsError if pyarrow is missing, which is not a dependency of all of ksm."""
    try:
        importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise RowsError("fingerprint files need pyarrow: pip install ksm[fleet]") from None
    except ImportError as error:
        raise RowsError(f"pyarrow cannot be used: {error}") from None


def schema() -> pyarrow.Schema:
    """The columns. None of them may be null."""
    import pyarrow as pa

    types = {
        "source": pa.dictionary(pa.int32(), pa.string()),
        "address": pa.uint64(),
        "fingerprint": pa.binary(16),
        "checksum": pa.uint32(),
        "class": pa.dictionary(pa.int32(), pa.string()),
    }
    return pa.schema([pa.field(name, types[name], nullable=False) for name in COLUMNS])


def as_json(head: Head) -> bytes:
    value = {"format": FORMAT, "page_size": PAGE_SIZE, **head._asdict(), "sources": [each._asdict() for each in head.sources]}
    return json.dumps(value).encode()


def from_json(text: bytes) -> Head:
    """The head of a file. RowsError if it is damaged, of another version, or of other pages."""
    if len(text) > MOST_HEAD:
        raise RowsError(f"damaged: metadata of {len(text):,} bytes")
    try:
        value = parse_json(text)
    except ValueError as error:
        raise RowsError(f"damaged: of its metadata, {error}") from None
    if not isinstance(value, dict):
        raise damaged("metadata")
    found = value.get("format")
    if not isinstance(found, str):
        raise damaged("format")
    if found != FORMAT:
        raise OtherRowsError(f"of the format {found[:MOST_NAME]!r}, and this ksm reads {FORMAT!r}")
    size = number(value, "page_size")
    if size != PAGE_SIZE:
        raise OtherRowsError(f"of pages of {size} bytes, and this ksm has pages of {PAGE_SIZE}")
    sources = value.get("sources")
    if not isinstance(sources, list):
        raise damaged("sources")
    host, time, hash, key, version = (string(value, name) for name in ("host", "time", "hash", "key", "version"))
    head = Head(host, time, hash, key, version, [source_from(each) for each in sources])
    if head.hash not in (PLAIN_HASH, KEYED_HASH) or bool(head.key) != (head.hash == KEYED_HASH):
        raise OtherRowsError(f"of the hash {head.hash!r}, and this ksm knows {PLAIN_HASH}, and {KEYED_HASH} with a key")
    if len({source.name for source in head.sources}) < len(head.sources):
        raise RowsError("damaged: two sources have one name")
    return head


def source_from(value: Any) -> SourceHead:
    if not isinstance(value, dict):
        raise damaged("sources")
    notes = value.get("notes")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise damaged("notes")
    kind = string(value, "kind")
    if len(kind) > MOST_KIND:
        raise damaged("kind")
    pages, holes, zero_holes, shared, hidden = (number(value, name) for name in COUNTS)
    return SourceHead(string(value, "name"), kind, pages, holes, zero_holes, shared, hidden, tuple(note[:MOST_NAME] for note in notes))


def string(value: dict[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or len(text) > MOST_NAME:
        raise damaged(name)
    return text


def number(value: dict[str, Any], name: str) -> int:
    count = value.get(name)
    if type(count) is not int or not 0 <= count < 1 << 52:
        raise damaged(name)
    return count


def damaged(name: str) -> RowsError:
    return RowsError(f"damaged: its metadata have no {name} that makes sense")


assert len(CLASSES) < 128
