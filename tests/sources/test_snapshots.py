# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots of the same memory, a pass over each: what KSM does with memory that changes so."""

import random
import re
import time

import pytest

pytest.importorskip("pyarrow")
import itertools

from cores import READ, WRITE, write_core
from given import PAGE, page, write_rows
from test_fingerprints import SETTINGS, found

from ksm.constants import MADV_DONTNEED
from ksm.estimate import report, scan
from ksm.sources import Source, SourceError
from ksm.sources.follow import bits
from ksm.sources.pieces import Loaded
from ksm.sources.snapshots import SnapshotSource, open_snapshots
from ksm.sources.stream import StreamSource

BASE = 1 << 21  # where the address 0 is in a process


def run(sources, passes, **options):
    try:
        with scan.Scan(sources, **options) as running:
            return running.run(passes, 0)
    finally:
        for source in sources:
            source.close()


def over(paths, more=0, holes=None, **options):
    return run(open_snapshots([str(path) for path in paths], holes), len(paths) + more, **options)


def write_image(path, numbers):
    path.write_bytes(b"".join(map(page, numbers)))
    return path


def figures(result):
    return [result.ksm[name] for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")]


def test_what_lasts(tmp_path):
    """Page by page: equal and still; changed between the last two; merged, and written to since; equal at last, but only just."""
    moments = [
        [5, 5, 5, 1, 6, 6, 6, 20, 7, 10],
        [5, 5, 5, 2, 6, 6, 6, 21, 7, 11],
        [5, 5, 5, 3, 6, 6, 99, 7, 7, 12],
    ]  # fmt: skip
    paths = [write_image(tmp_path / f"t{place}", numbers) for place, numbers in enumerate(moments)]
    result = over(paths)
    assert figures(result) == [2, 3, 1, 4]  # 5 and 6; one 7 is still, and the other has just come
    assert result.savings == (0, 3, 0)
    assert result.passes == result.snapshots == 3
    assert "3 snapshots, a pass over each: what is merged" in report.how_it_ended(result)
    assert report.overstatement(result) == []
    # Two more passes over the last snapshot: what has come last is merged, too
    after = over(paths, more=2)
    assert after.savings == (0, 4, 0)
    assert (after.passes, after.snapshots) == (5, 3)
    assert "3 snapshots, a pass over each, and 2 more over the last one: " in report.how_it_ended(after)
    # Bytes give the same
    assert found(over(paths, exact=True)) == found(result)


class Written(Source):
    """The same pages, by what a process would do: write, map and unmap."""

    kind = "image"

    def __init__(self, name, moments, base):
        super().__init__(name)
        self.moments = moments
        self.base = base
        self.copied = 1 << 24

    def attach(self, machine):
        self.now = {}
        self.blocks = set()
        self.spawn(machine)
        self.refresh(0)

    def refresh(self, number):
        if number >= len(self.moments):
            return
        wanted = self.moments[number]
        blocks = {address >> 21 for address in wanted}
        for block in sorted(blocks - self.blocks):
            self.process.mmap(BASE, addr=self.base + (block << 21))
        for address, number in sorted(wanted.items()):
            if self.now.get(address) != number:
                self.process.write(self.base + address, page(number))
        for block in sorted(self.blocks - blocks):
            self.process.munmap(self.base + (block << 21), BASE)
        for address in sorted(set(self.now) - set(wanted)):
            if address >> 21 in blocks:
                self.process.madvise(self.base + address, PAGE, MADV_DONTNEED)
        self.now, self.blocks = wanted, blocks

    def ranges(self):
        return [(self.base + (block << 21), BASE) for block in sorted(self.blocks)]

    def pieces(self):
        return iter(())


def lives(chance, count):
    """A memory at several moments: pages change, go and come."""
    blocks = [chance.randrange(1 << 10) << 21 for _ in range(chance.randrange(1, 6))]
    now, moments = {}, []
    for _ in range(count):
        for _ in range(chance.randrange(60)):
            address = chance.choice(blocks) + PAGE * chance.randrange(40)
            if chance.randrange(4):
                now[address] = chance.choice((0, chance.randrange(4), chance.randrange(30), chance.randrange(1 << 50)))
            else:
                now.pop(address, None)
        if not chance.randrange(8):
            now = {address: number for address, number in now.items() if address >> 21 != blocks[0] >> 21}
        moments.append(dict(now))
    return moments


@pytest.mark.parametrize("seed", range(24))
def test_as_if_a_process_had_written_so(tmp_path, seed):
    chance = random.Random(seed)
    count = chance.randrange(2, 8)
    names = ["a", "b", "c"][: chance.randrange(1, 4)]
    memory = {name: lives(chance, count) for name in names}
    paths = []
    for moment in range(count):
        write_rows(tmp_path / f"t{moment}", {name: memory[name][moment] for name in names})
        paths.append(tmp_path / f"t{moment}")
    options = {"settings": SETTINGS[seed % len(SETTINGS)]} if seed % 4 else {"era": "2.6.38"}
    more = chance.choice((0, 0, 1, 3))
    result = over(paths, more=more, **options)
    written = run([Written(name, moments, BASE) for name, moments in memory.items()], count + more, exact=True, **options)
    assert found(result) == found(written)
    if len(names) > 1:
        assert [source.name for source in result.sources] == names


def test_images_have_the_addresses_of_their_file(tmp_path):
    """Unlike in a scan of one image: a page is that of the same place in the next one, whatever holes there are."""
    moments = [{0: 1, PAGE: 1, 9 * PAGE: 2, 700 * PAGE: 2}, {0: 1, 9 * PAGE: 2, 10 * PAGE: 3, 700 * PAGE: 2}, {9 * PAGE: 2, 700 * PAGE: 2}]
    paths = []
    for place, pages in enumerate(moments):
        paths.append(tmp_path / f"t{place}")
        with paths[-1].open("wb") as file:
            for address, number in pages.items():
                file.seek(address)
                file.write(page(number))
            file.truncate(1000 * PAGE)
    if paths[0].stat().st_blocks * 512 >= 1000 * PAGE:
        pytest.skip("a file system without holes")
    assert found(over(paths, holes="absent")) == found(run([Written("a", moments, BASE)], 3, exact=True))
    whole = [{place * PAGE: pages.get(place * PAGE, 0) for place in range(1000)} for pages in moments]
    assert found(over(paths)) == found(run([Written("a", whole, BASE)], 3, exact=True))


def test_cores_of_a_process(tmp_path):
    """At the addresses of the process, the highest included."""
    places = (0x400000, (1 << 47) - 8 * PAGE)
    moments = [{places[0]: [1, 1, 2], places[1]: [2, 3]}, {places[0]: [1, 1, 4], places[1]: [2, 3]}, {places[1]: [2, 2]}]
    paths = []
    for place, pages in enumerate(moments):
        segments = [(address, b"".join(map(page, numbers)), READ | WRITE) for address, numbers in pages.items()]
        paths.append(write_core(tmp_path / f"t{place}", segments))
    result = over(paths)
    # 2 was there all the time, and a second one has just come. The rest has gone.
    assert (result.pages, figures(result)) == (2, [0, 0, 1, 1])
    assert found(over(paths[:2])) == found(over(paths[:2], exact=True))
    assert over(paths[:2]).savings == (0, 1, 0)


def test_sources_that_come_and_go(tmp_path):
    write_rows(tmp_path / "t0", {"a": {0: 1, PAGE: 1}, "b": {0: 1}})
    write_rows(tmp_path / "t1", {"a": {0: 1, PAGE: 1}, "c": {0: 1}})
    write_rows(tmp_path / "t2", {"a": {0: 1, PAGE: 1}, "c": {0: 1}})
    result = over([tmp_path / f"t{place}" for place in range(3)])
    assert [(source.name, source.pages) for source in result.sources] == [("a", 2), ("b", 0), ("c", 1)]
    assert result.savings == (0, 1, 1)
    assert result.source_notes == [("b", "not in snapshot 3")]


def test_snapshots_that_do_not_go_together(tmp_path):
    image = write_image(tmp_path / "image", [1, 2])
    one, two = tmp_path / "one", tmp_path / "two"
    write_rows(one, {"a": {0: 1}})
    write_rows(two, {"a": {0: 1}, "b": {0: 1}})
    assert over([image, one]).pages == 1
    reason = f"^{re.escape(str(image))}: one source without a name of its own, and other snapshots have several$"
    with pytest.raises(SourceError, match=reason):
        over([image, two])
    with pytest.raises(SourceError, match=r"^pid:1: a process is no snapshot: ksm fingerprint --every makes some of it$"):
        open_snapshots([str(image), "pid:1"])
    with pytest.raises(SourceError, match=r": a folder is no snapshot: ksm fingerprint makes one of it$"):
        open_snapshots([str(image), str(tmp_path)])
    with pytest.raises(SourceError, match=r"^.*missing: No such file or directory$"):
        over([image, tmp_path / "missing"])
    with pytest.raises(SourceError, match=r"one: a: there are no bytes of pages in it, and --exact needs them$"):
        over([image, one], exact=True)


def test_snapshots_of_different_keys(tmp_path):
    """In whichever place they are: such fingerprints differ where pages are equal, and all memory would seem to change."""
    image, key, other = write_image(tmp_path / "image", [1, 2]), bytes(range(32)), bytes(32)
    for name, options in {"plain": {}, "keyed": {"key": key}, "other": {"key": other}}.items():
        write_rows(tmp_path / name, {"a": {0: 1, PAGE: 2}}, **options)
    plain, keyed, others = (tmp_path / name for name in ("plain", "keyed", "other"))
    for paths, given in (
        ([keyed, others], None), ([image, keyed, others], key), ([plain, keyed], None), ([keyed, image], None), ([image, keyed], None),
        ([plain, image], key), ([keyed, image], other), ([keyed, keyed, plain], key),
    ):  # fmt: skip
        with pytest.raises(SourceError, match=r"^.* has fingerprints of .*, .* of .*: these cannot be compared$"):
            over(paths, key=given)
    alike = (([keyed, image], key), ([image, keyed], key), ([plain, image], None), ([keyed, keyed], None), ([image, image], key))
    for paths, given in alike:
        assert figures(over(paths, key=given)) == [0, 0, 2, 0]


class Slow(Loaded):
    """A piece that a thread takes long to read."""

    def read(self, buffer, sink):
        time.sleep(0.2)
        super().read(buffer, sink)


class Again(StreamSource):
    kind = "dump"

    def pieces(self):
        yield Slow(0, page(1) * 3)
        yield Loaded(PAGE, page(2))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_page_that_comes_again_in_a_snapshot_counts(threads):
    """However long the one before takes."""
    result = run([SnapshotSource("a", [Again("a"), Again("a"), Again("a")])], 3, threads=threads)
    assert figures(result) == [1, 1, 1, 0]


def test_a_snapshot_without_an_end_stops_before_memory_does(monkeypatch):
    class Endless(StreamSource):
        kind = "dump"

        def pieces(self):
            for address in range(0, 1 << 30, 1 << 20):
                yield Loaded(address, bytes(1 << 20))

    monkeypatch.setattr("ksm.sources.stream.available_memory", lambda: 1 << 20)
    with pytest.raises(SourceError, match=r"^t1: not enough memory: it runs out after 64 MiB of the source$"):
        run([SnapshotSource("a", [Again("t0"), Endless("t1")])], 2)


def test_bits():
    for word in [0, 1, 6, 0b1011001, (1 << 512) - 1, 1 << 511, *(random.Random(1).getrandbits(512) for _ in range(50))]:
        groups = list(bits(word))
        assert sum(((1 << count) - 1) << first for first, count in groups) == word
        assert all(first + count < after for (first, count), (after, _) in itertools.pairwise(groups))
