# SPDX-License-Identifier: GPL-2.0-only
"""Fingerprint files: what is in them, beside other libraries; and that no file, however damaged, is more than one line."""

import json
import os
import random
import re
import subprocess
import sys
import time

import pytest

pa = pytest.importorskip("pyarrow")
import xxhash  # noqa: E402
from given import PAGE, Given, page, write_rows  # noqa: E402
from pyarrow import parquet  # noqa: E402

import ksm  # noqa: E402
from ksm.fingerprint.classes import CLASSES, classes_of  # noqa: E402
from ksm.rows import format  # noqa: E402
from ksm.rows.format import ENTRY, FORMAT, RowsError, schema  # noqa: E402
from ksm.rows.read import RowsFile  # noqa: E402
from ksm.sources import SourceError, open_file  # noqa: E402
from ksm.sources.save import save_file  # noqa: E402

ZEROS = bytes(PAGE)
HEAD = {"format": FORMAT, "page_size": PAGE, "host": "h", "time": "t", "hash": "XXH3-128", "key": "", "version": "0"}


def quiet(what, done, total):
    pass


def expected(address, data):
    """The row of a page, by another library."""
    number = xxhash.xxh3_128_intdigest(data) ^ xxhash.xxh3_128_intdigest(ZEROS)
    checksum = (xxhash.xxh64_intdigest(data) ^ xxhash.xxh64_intdigest(ZEROS)) & 0xFFFFFFFF
    return {"address": address, "fingerprint": number.to_bytes(16, "big"), "checksum": checksum, "class": CLASSES[classes_of(data)[0]]}


def rows(path, name=None):
    found = parquet.read_table(path).to_pylist()
    return [row for row in found if row.pop("source") == name] if name else found


def some_pages(seed, count):
    chance = random.Random(seed)
    return [chance.choice((ZEROS, page(chance.randrange(5)), chance.randbytes(PAGE), b"text " * 819 + b"!")) for _ in range(count)]


def test_a_row_for_each_page(tmp_path):
    pages = some_pages(1, 50)
    image = b"".join(pages)
    other = [(5 << 40, page(9)), (1 << 30, pages[0] + pages[1])]
    saved = save_file(str(tmp_path / "f"), [Given("one", [(0, image)], ordered=True), Given("two", other)], progress=quiet)
    assert (saved.pages, saved.size, saved.left) == (53, (tmp_path / "f").stat().st_size, [])
    assert rows(tmp_path / "f", "one") == [expected(place * PAGE, data) for place, data in enumerate(pages)]
    places = [(1 << 30, pages[0]), ((1 << 30) + PAGE, pages[1]), (5 << 40, page(9))]
    assert rows(tmp_path / "f", "two") == [expected(address, data) for address, data in places]
    file = parquet.ParquetFile(tmp_path / "f")
    assert file.schema_arrow.remove_metadata() == schema()
    assert all(file.metadata.row_group(place).column(2).compression == "ZSTD" for place in range(2))
    head = json.loads(file.metadata.metadata[ENTRY])
    assert (head["format"], head["page_size"], head["hash"], head["key"]) == (FORMAT, PAGE, "XXH3-128", "")
    assert (head["host"], head["version"]) == (os.uname().nodename, ksm.__version__)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", head["time"])
    assert [(source["name"], source["pages"]) for source in head["sources"]] == [("one", 50), ("two", 3)]


@pytest.mark.parametrize("threads", [1, 3])
def test_pages_in_any_order(tmp_path, threads):
    """Sorted by address; of a page that came twice, the later one."""
    chance = random.Random(2)
    given, last = [], {}
    for _ in range(300):
        address = chance.choice((0, 1 << 32, (1 << 47) - (8 << 20))) + PAGE * chance.randrange(1500)
        pages = [page(chance.randrange(1000)) for _ in range(chance.randrange(1, 20))]
        given.append((address, b"".join(pages)))
        last.update({address + place * PAGE: data for place, data in enumerate(pages)})
    source = Given("any", given)
    source.threads = threads
    assert save_file(str(tmp_path / "f"), [source], progress=quiet).pages == len(last)
    assert rows(tmp_path / "f", "any") == [expected(address, data) for address, data in sorted(last.items())]
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_row_groups(tmp_path, monkeypatch):
    """A row group is written when it is full, and has rows of one source."""
    monkeypatch.setattr("ksm.rows.write.GROUP", 100)
    pieces = [(place * 30 * PAGE, b"".join(page(place * 30 + each) for each in range(30))) for place in range(9)]
    save_file(str(tmp_path / "f"), [Given("a", pieces, ordered=True), Given("none", []), Given("b", pieces[:1])], progress=quiet)
    metadata = parquet.ParquetFile(tmp_path / "f").metadata
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == [120, 120, 30, 30]
    with open(tmp_path / "f", "rb") as file:
        opened = RowsFile(file.fileno(), os.fstat(file.fileno()).st_size)
        assert [source.pages for source in opened.head.sources] == [270, 0, 30]
        assert [[batch.runs for batch in opened.batches(place)] for place in range(3)] == [
            [[(0, 120 * PAGE)], [(120 * PAGE, 240 * PAGE)], [(240 * PAGE, 270 * PAGE)]], [], [[(0, 30 * PAGE)]],
        ]  # fmt: skip


def test_a_source_that_is_not_in_order(tmp_path):
    for given in ([(PAGE, page(1)), (0, page(2))], [(0, page(1) * 2), (PAGE, page(2))]):
        with pytest.raises(SourceError, match=r"^a: damaged: a page at 0x[01]0*, which is not in the order of addresses$"):
            save_file(str(tmp_path / "f"), [Given("a", given, ordered=True)], progress=quiet)
    assert list(tmp_path.iterdir()) == []


class Stops(Given):
    """A source that cannot be read to its end."""

    def __init__(self, error):
        super().__init__("stops", [(0, page(1))], ordered=True)
        self.raised = error

    def pieces(self):
        yield from super().pieces()
        raise self.raised


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SourceError("x"), MemoryError(), OSError(28, "No space left on device")])
def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path, error):
    (tmp_path / "there").write_text("old")
    for name in ("there", "new"):
        with pytest.raises(SourceError if isinstance(error, OSError) else type(error)):
            save_file(str(tmp_path / name), [Given("a", [(0, page(1))]), Stops(error)], progress=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "old"


def test_a_full_disk(tmp_path):
    code = f"""if True:
        import resource, signal
        from given import Given
        from ksm.sources.save import save_file
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        import os
        for ordered in (True, False):
            try:
                save_file({str(tmp_path / "f")!r}, [Given("a", [(0, os.urandom(4 << 20))], ordered=ordered)], progress=lambda *step: None)
            except OSError as error:
                print(error.strerror)
    """
    path = os.pathsep.join([os.path.dirname(os.path.dirname(ksm.__file__)), os.path.join(os.path.dirname(__file__), "..", "sources")])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (done.stdout, done.stderr) == ("File too large\n" * 2, "")
    assert list(tmp_path.iterdir()) == []


def test_modes_and_places_of_files(tmp_path):
    write_rows(tmp_path / "new", {"a": {0: 1}})
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600  # fingerprints tell of memory
    (tmp_path / "new").chmod(0o644)
    (tmp_path / "link").symlink_to("new")
    write_rows(tmp_path / "link", {"a": {0: 1, PAGE: 2}})
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o644
    assert len(rows(tmp_path / "new")) == 2
    write_rows(tmp_path / ("é" * 120), {"a": {0: 1}})  # 240 bytes of 255
    os.mkfifo(tmp_path / "fifo")
    for name, reason in (("fifo", "not a regular file"), (".", "Is a directory"), ("missing/f", "No such file or directory")):
        with pytest.raises(OSError, match=reason):
            write_rows(tmp_path / name, {"a": {0: 1}})


def test_names_that_utf_8_cannot_have(tmp_path):
    write_rows(tmp_path / "f", {os.fsdecode(b"a\xff"): {0: 1}, "b\n": {0: 2}})
    assert {row["source"] for row in rows(tmp_path / "f")} == {"a?", "b?"}
    with pytest.raises(SourceError, match=r"^two sources have one name"):
        write_rows(tmp_path / "f", {os.fsdecode(b"a\xff"): {0: 1}, os.fsdecode(b"a\xfe"): {0: 2}})


# Files of others, and damaged ones

def written(path, head, *, columns=None, source="a", addresses=(0, PAGE), checksum=0, groups=1, **options):
    """A file as anybody can write it."""
    count = len(addresses)
    columns = columns or {
        "source": pa.array([source] * count).dictionary_encode(),
        "address": pa.array(addresses, pa.uint64()),
        "fingerprint": pa.array([bytes(16)] * count, pa.binary(16)),
        "checksum": pa.array([checksum] * count, pa.uint32()),
        "class": pa.array(["zero"] * count).dictionary_encode(),
    }
    fields = [pa.field(name, column.type, nullable=column.null_count > 0) for name, column in columns.items()]
    table = pa.table(list(columns.values()), schema=pa.schema(fields))
    with parquet.ParquetWriter(path, table.schema, **{"compression": "zstd", **options}) as writer:
        for _ in range(groups):
            writer.write_table(table, row_group_size=1 << 30)
        if head is not None:
            writer.add_key_value_metadata({ENTRY: head if isinstance(head, bytes) else json.dumps(head).encode()})
    return path


def one(name="a", pages=2, **others):
    return {"name": name, "kind": "image", "pages": pages, "holes": 0, "zero_holes": 0, "shared": 0, "hidden": 0, "notes": [], **others}


def read_all(path):
    """Everything in the file, by a machine; or the one line that says why not."""
    try:
        sources = open_file(str(path)).parts()
    except SourceError as error:
        return line(error, path)
    try:
        with ksm.Machine("16M", pages="fingerprints", max_memory="64G") as machine:
            for source in sources:
                source.attach(machine)
            return sum(source.process.rss() for source in sources)
    except SourceError as error:
        return line(error, path)
    finally:
        for source in sources:
            source.close()


def line(error, path):
    text = str(error)
    assert "\n" not in text
    assert len(text) < 1000
    assert text.startswith(str(path))
    return text[len(str(path)) + 2 :]


def test_a_file_of_others(tmp_path):
    assert read_all(written(tmp_path / "f", {**HEAD, "sources": [one()]})) == 2
    addresses = [0, 1 << 46, (1 << 46) + PAGE, (1 << 46) + (1 << 30)]
    assert read_all(written(tmp_path / "f", {**HEAD, "sources": [one(pages=4)]}, addresses=addresses)) == 4
    assert read_all(written(tmp_path / "f", {**HEAD, "more": 1, "sources": [one(more=2)]}, compression="snappy")) == 2


@pytest.mark.parametrize("head, reason", [
    (None, "a Parquet file, but none that ksm fingerprint has written"),
    (b"{", "damaged: of its metadata, it is not JSON"),
    (b"[]", "damaged: its metadata have no metadata"),
    (b"\xff", "damaged: of its metadata, it is not UTF-8"),
    ({}, "damaged: its metadata have no format"),
    ({"format": "ksm fingerprints 2"}, "of the format 'ksm fingerprints 2', and this ksm reads 'ksm fingerprints 1'"),
    ({**HEAD, "page_size": 16384}, "of pages of 16384 bytes, and this ksm has pages of 4096"),
    ({**HEAD, "page_size": "4096"}, "damaged: its metadata have no page_size"),
    ({**HEAD}, "damaged: its metadata have no sources"),
    ({**HEAD, "sources": [1]}, "damaged: its metadata have no sources"),
    ({**HEAD, "sources": []}, "damaged: rows of no source"),
    ({**HEAD, "host": 5, "sources": []}, "damaged: its metadata have no host"),
    ({**HEAD, "hash": "MD5", "sources": []}, "of the hash 'MD5', and this ksm knows XXH3-128, and BLAKE3-128 with a key"),
    ({**HEAD, "hash": "BLAKE3-128", "sources": []}, "of the hash 'BLAKE3-128', and this ksm knows"),
    ({**HEAD, "key": "0a", "sources": []}, "of the hash 'XXH3-128', and this ksm knows"),
    ({**HEAD, "sources": [one(), one()]}, "damaged: two sources have one name"),
    ({**HEAD, "sources": [one(pages=1)]}, "damaged: 2 rows of a, and there should be 1"),
    ({**HEAD, "sources": [one(pages=3)]}, "damaged: 2 rows of a, and there should be 3"),
    ({**HEAD, "sources": [one(pages=-1)]}, "damaged: its metadata have no pages"),
    ({**HEAD, "sources": [one(pages=True)]}, "damaged: its metadata have no pages"),
    ({**HEAD, "sources": [one(pages=1 << 60)]}, "damaged: its metadata have no pages"),
    ({**HEAD, "sources": [one(notes=5)]}, "damaged: its metadata have no notes"),
    ({**HEAD, "sources": [one(kind="k" * 17)]}, "damaged: its metadata have no kind"),
    ({**HEAD, "sources": [one(name="n" * 5000)]}, "damaged: its metadata have no name"),
    ({**HEAD, "sources": [one(name="b")]}, "b: damaged: rows of 'a' among those of 'b'"),
    (b" " * (5 << 20), "damaged: metadata of 5,242,880 bytes"),
], ids=lambda value: str(value)[:30])  # fmt: skip
def test_metadata_that_make_no_sense(tmp_path, head, reason):
    assert reason in read_all(written(tmp_path / "f", head))


@pytest.mark.parametrize(
    "addresses", [[PAGE, 0], [0, 0], [0, 100], [0, 1 << 47], [0, 1 << 63], [0, (1 << 64) - PAGE], [(1 << 64) - PAGE, 0]]
)
def test_addresses_that_cannot_be(tmp_path, addresses):
    assert re.match("a: damaged: a page at 0x", read_all(written(tmp_path / "f", {**HEAD, "sources": [one()]}, addresses=addresses)))


def test_a_frame_that_stands_for_no_page(tmp_path):
    text = read_all(written(tmp_path / "f", {**HEAD, "sources": [one()]}, checksum=5))
    assert text.startswith("a: damaged: ")


def test_addresses_that_are_spread_too_wide(tmp_path, monkeypatch):
    monkeypatch.setattr("ksm.sources.follow.MOST_BLOCKS", 100)
    addresses = [place << 21 for place in range(200)]
    head = {**HEAD, "sources": [one(pages=200)]}
    assert read_all(written(tmp_path / "f", head, addresses=addresses)) == "a: damaged: 107 pages in 107 places"


def test_columns_that_are_not_those_of_the_format(tmp_path):
    head = {**HEAD, "sources": [one()]}
    written(tmp_path / "good", head)
    good = {name: parquet.read_table(tmp_path / "good")[name].combine_chunks() for name in format.COLUMNS}
    wrong = {"source": good["address"], "address": good["checksum"], "fingerprint": pa.array([b"x", b"y"]), "checksum": good["address"],
             "class": pa.array([1, 2])}  # fmt: skip
    for name, column in wrong.items():
        text = read_all(written(tmp_path / "f", head, columns={**good, name: column}))
        assert text.startswith(f"damaged: no column {name} of the type ")
        left = {each: data for each, data in good.items() if each != name}
        assert read_all(written(tmp_path / "f", head, columns=left)).startswith(f"damaged: no column {name} of the type ")
    more = {**good, "more": good["address"]}
    assert read_all(written(tmp_path / "f", head, columns=more)).startswith("damaged: columns that the format has not")
    null = {**good, "address": pa.array([0, None], pa.uint64())}
    assert read_all(written(tmp_path / "f", head, columns=null)) == "damaged: its footer"
    mixed = {**good, "source": pa.array(["a", "b"]).dictionary_encode()}
    assert read_all(written(tmp_path / "f", head, columns=mixed)) == "a: damaged: rows of 'a, b' among those of 'a'"


def test_pages_that_need_much_memory_are_not_unpacked(tmp_path):
    """A name of 70 MB takes 10 KB in a file. Also a row group of more rows than any that is written."""
    name = "x" * (70 << 20)
    path = written(tmp_path / "f", {**HEAD, "sources": [one()]}, source=name, write_statistics=False)
    del name
    assert path.stat().st_size < 100_000
    assert re.fullmatch(r"a: damaged: a page of 73,400,\d+ bytes, in [\d,]+", read_all(path))
    count = (1 << 20) + 1
    head = {**HEAD, "sources": [one(pages=count)]}
    assert read_all(written(tmp_path / "g", head, addresses=range(0, count * PAGE, PAGE))) == "damaged: a row group of 1,048,577 rows"


@pytest.fixture
def sample(tmp_path):
    pages = {PAGE * place: place % 7 * 10**9 for place in range(300)}
    write_rows(tmp_path / "sample", {"a": pages, "b": {1 << 32: 5}})
    return (tmp_path / "sample").read_bytes()


def test_cut_off_anywhere(tmp_path, sample):
    path = tmp_path / "cut"
    chance = random.Random(1)
    for length in [*range(4, 20), *chance.sample(range(20, len(sample)), 40), len(sample) - 1]:
        path.write_bytes(sample[:length])
        text = read_all(path)
        assert text.startswith(("truncated", "damaged")), (length, text)


def test_bytes_changed_anywhere(tmp_path, sample):
    path = tmp_path / "changed"
    chance = random.Random(2)
    begun = time.process_time()
    outcomes = set()
    for _ in range(400):
        data = bytearray(sample)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(4, len(data))] = chance.choice((0, 255, 127, chance.randrange(256)))
        path.write_bytes(data)
        outcomes.add(type(read_all(path)))
    assert str in outcomes
    assert time.process_time() - begun < 20


def test_feet_that_are_absurd(tmp_path, sample):
    path = tmp_path / "foot"
    for foot in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80", (len(sample)).to_bytes(4, "little")):
        path.write_bytes(sample[:-8] + foot + b"PAR1")
        assert read_all(path).startswith("damaged: ")


def test_without_pyarrow(tmp_path, sample, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    text = "fingerprint files need pyarrow: pip install ksm[fleet]"
    assert read_all(tmp_path / "sample") == text
    with pytest.raises(RowsError, match=re.escape(text)):
        write_rows(tmp_path / "f", {"a": {0: 1}})
    assert not (tmp_path / "f").exists()
