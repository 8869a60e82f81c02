# SPDX-License-Identifier: GPL-2.0-only
"""A scan of fingerprint files finds what a scan of the memory finds."""

import gzip
import os
import random
import signal
import subprocess
import time

import pytest

pytest.importorskip("pyarrow")
from cores import READ, WRITE, write_core
from given import PAGE, page, write_rows
from pyarrow import parquet

from ksm.estimate import report, scan
from ksm.sources import Host, SourceError, open_file, open_sources
from ksm.sources.live import InProcess
from ksm.sources.save import save_file


def run(texts, *, passes=None, holes=None, **options):
    host = Host()
    sources, _ = open_sources([str(text) for text in texts], host, holes=holes)
    try:
        with scan.Scan(sources, **options) as running:
            return running.run(passes, 0)
    finally:
        for source in sources:
            source.close()
        host.close()


def fingerprint(path, texts, key=None, threads=1, holes=None):
    host = Host()
    sources, _ = open_sources([str(text) for text in texts], host, holes=holes)
    for source in sources:
        source.threads = threads
    save_file(str(path), sources, key=key, progress=lambda *step: None)
    for source in sources:
        source.close()
    host.close()
    return path


def found(result):
    """All that a scan has counted."""
    return (
        result.ksm, [(source.kind, source.pages, source.ksm_stat) for source in result.sources], result.savings, result.passes,
        result.settled, result.skipped,
    )  # fmt: skip


def write_image(path, chance, pages):
    """Zeros, contents that are everywhere, and unique ones; holes where the file system has them."""
    with open(path, "wb") as file:
        for place in range(pages):
            kind = chance.randrange(6)
            if kind:
                file.seek(place * PAGE)
                file.write(page(chance.choice((0, chance.randrange(3), chance.randrange(40), chance.randrange(1 << 60)))))
        file.truncate(pages * PAGE)
    return path


SETTINGS = [
    {}, {"max_page_sharing": "2"}, {"max_page_sharing": "3", "use_zero_pages": "1"}, {"use_zero_pages": "1"}, {"smart_scan": "0"},
    {"max_page_sharing": "5", "smart_scan": "0"},
]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_images_and_their_fingerprints(tmp_path, seed):
    chance = random.Random(seed)
    images = [write_image(tmp_path / str(place), chance, chance.randrange(1, 400)) for place in range(chance.randrange(1, 5))]
    file = fingerprint(tmp_path / "f", images)
    options = {"settings": SETTINGS[seed % len(SETTINGS)]} if seed % 4 else {"era": "2.6.38"}
    passes = chance.choice((None, None, 1, 2, 9))
    of_images, of_file = run(images, passes=passes, **options), run([file], passes=passes, **options)
    assert found(of_file) == found(of_images)
    assert [source.name for source in of_file.sources] == [f"{file}: {image}" for image in images]
    # One of them as a file, beside the others
    some = fingerprint(tmp_path / "some", images[:1])
    assert found(run([some, *images[1:]], passes=passes, **options)) == found(of_images)


@pytest.mark.parametrize("holes", [None, "absent", "zeros"])
def test_holes_are_what_they_were_when_the_file_was_written(tmp_path, holes):
    image = write_image(tmp_path / "i", random.Random(9), 300)
    of_image, of_file = run([image], holes=holes), run([fingerprint(tmp_path / "f", [image], holes=holes)])
    assert found(of_file) == found(of_image)
    counts = [(source.pages, source.holes, source.zero_holes) for source in of_image.sources]
    assert [(source.pages, source.holes, source.zero_holes) for source in of_file.sources] == counts
    assert counts[0][0] + counts[0][1] == 300
    if image.stat().st_blocks * 512 < 290 * PAGE:
        assert counts[0][1 if holes == "absent" else 2] > 20


def test_a_core_and_its_fingerprints(tmp_path):
    """Segments at any offset, and at the top of what a process may have."""
    places = {0x400000: [1, 2, 2, 0], 0x7F0000001000: [3, 3, 0, 9], (1 << 47) - 8 * PAGE: [1, 1]}
    for odd in (0, 100):
        segments = [(address, b"".join(map(page, numbers)), READ | WRITE) for address, numbers in places.items()]
        core = write_core(tmp_path / "core", segments, odd=odd)
        assert found(run([fingerprint(tmp_path / "f", [core])])) == found(run([core]))


@pytest.mark.parametrize("era", ["6.12", "6.1", "2.6.38"])
def test_processes_and_their_fingerprints(tmp_path, start, era):
    """Of processes that stand still. Two of them have pages in common since a fork: a file has these once, and KSM counts each mapping."""
    first, second = start(), start()
    first.do("a = area(700); fill(a, 0, [0, 0] + [10**15 + i // 3 for i in range(500)] + [0] * 90)")
    first.do("b = area(40); fill(b, 0, [7] * 40); pid = os.fork(); pid or time.sleep(1000)")
    second.do("a = area(300); fill(a, 0, [10**15 + i for i in range(290)])")
    [child] = first.ask("[pid]")
    pids = [first.pid, child, second.pid]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            while open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "T":  # noqa: SIM115
                pass
        texts = [f"pid:{pid}" for pid in pids]
        # Again if not equal: a page that the kernel is just moving to another frame (compaction) is in no page table for a moment.
        for _ in range(3):
            file = fingerprint(tmp_path / "f", texts, threads=3)
            of_processes, of_file = run(texts, era=era, passes=4), run([file], era=era, passes=4)
            if (of_file.savings, of_file.pages) == (of_processes.savings, of_processes.pages):
                break
        assert (of_file.savings, of_file.pages) == (of_processes.savings, of_processes.pages)
        assert of_file.savings.pages > 400
        if os.geteuid() == 0:
            assert of_processes.shared > 40
            assert of_processes.ksm["pages_sharing"] > of_file.ksm["pages_sharing"]
        apart = [texts[0], texts[2]]
        for _ in range(3):
            file = fingerprint(tmp_path / "apart", apart)
            results = [found(run(files, era=era, passes=4)) for files in (apart, [file])]
            results.append(found(run([fingerprint(tmp_path / "one", apart[:1]), apart[1]], era=era, passes=4)))
            if results[0] == results[1] == results[2]:
                break
        assert results[0] == results[1] == results[2]
        for result in (of_processes, of_file):
            assert [note for note in result.notes if "since a fork" in note or "in other processes" in note]
        # Nobody writes to a file any more
        for result, image in ((of_processes, False), (of_file, True)):
            assert [note.startswith("a still image overstates") for note in report.overstatement(result)] == [image]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        os.kill(child, signal.SIGKILL)


def test_an_image_that_is_packed(tmp_path):
    """Also through a pipe: it is read once."""
    image = write_image(tmp_path / "i", random.Random(5), 700)
    (tmp_path / "i.gz").write_bytes(gzip.compress(image.read_bytes()))
    packed = fingerprint(tmp_path / "packed", [tmp_path / "i.gz"])
    with subprocess.Popen(["cat", tmp_path / "i.gz"], stdout=subprocess.PIPE) as cat:
        piped = fingerprint(tmp_path / "piped", [f"/proc/self/fd/{cat.stdout.fileno()}"])
    assert found(run([packed])) == found(run([piped])) == found(run([image]))
    (tmp_path / "f.gz").write_bytes(gzip.compress(packed.read_bytes()))
    with pytest.raises(SourceError, match=r"f\.gz: a fingerprint file is read from its end: unpack it into a file first$"):
        run([tmp_path / "f.gz"])


def test_several_threads(tmp_path):
    chance = random.Random(7)
    image = write_image(tmp_path / "i", chance, 5000)
    one = fingerprint(tmp_path / "one", [image])
    three = fingerprint(tmp_path / "three", [image], threads=3)
    assert one.read_bytes()[: -2000] == three.read_bytes()[: -2000]
    assert found(run([one])) == found(run([three])) == found(run([image]))


class Slow(InProcess):
    """Pages that are read a while after their turn has come."""

    def read(self, buffer, sink):
        time.sleep(0.05)
        super().read(buffer, sink)


def test_pieces_of_a_process_are_read_after_the_last_one_was_given(target, monkeypatch, tmp_path):
    monkeypatch.setattr("ksm.sources.live.InProcess", Slow)
    monkeypatch.setattr("ksm.sources.live.PIECE", 1 << 20)
    target.do("a = area(3000); fill(a, 0, [10**15 + i for i in range(3000)]); pid = os.fork(); pid or time.sleep(1000)")
    [child] = target.ask("[pid]")
    try:
        file = fingerprint(tmp_path / "f", [f"pid:{target.pid}"], threads=4)
        assert run([file]).pages >= 3000
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_process_that_exits_while_it_is_read(start, monkeypatch, tmp_path):
    """It is left out of the file, and what was read of it does not stay."""
    first, second = start(), start()
    first.do("a = area(3000); fill(a, 0, [10**15 + i for i in range(3000)])")

    class Last(InProcess):
        def read(self, buffer, sink):
            if self.pid == first.pid:
                first.end()
            super().read(buffer, sink)

    monkeypatch.setattr("ksm.sources.live.InProcess", Last)
    host = Host()
    sources, _ = open_sources([f"pid:{first.pid}", f"pid:{second.pid}"], host)
    saved = save_file(str(tmp_path / "f"), sources, progress=lambda *step: None)
    assert [source.pid for source in saved.sources] == [second.pid]
    assert len(saved.left) == 1
    assert saved.left[0].startswith(f"pid {first.pid} (")
    assert len(run([tmp_path / "f"]).sources) == 1
    host.close()


KEY, OTHER = bytes(range(32)), bytes(32)


@pytest.mark.parametrize("era", ["6.12", "6.1", "2.6.38"])
def test_keyed_fingerprints(tmp_path, era):
    """Alone, beside memory and beside each other; and not beside what was made in another way."""
    chance = random.Random(3)
    images = [write_image(tmp_path / str(place), chance, 200) for place in range(2)]
    expected = found(run(images, era=era))
    one, two = (fingerprint(tmp_path / f"k{place}", [image], key=KEY) for place, image in enumerate(images))
    assert found(run([one, two], era=era)) == expected
    assert found(run([one, images[1]], era=era, key=KEY)) == expected
    assert found(run(images, era=era, key=KEY)) == expected
    plain, other = fingerprint(tmp_path / "p", images[:1]), fingerprint(tmp_path / "o", images[:1], key=OTHER)
    for sources, key in (([one, plain], None), ([one, other], None), ([one, images[1]], None), ([one], OTHER), ([plain, images[1]], KEY)):
        with pytest.raises(SourceError, match=r" has fingerprints of \S+( with key \w+)?, .* of .*: these cannot be compared$"):
            run(sources, era=era, key=key)


def test_fingerprints_with_a_key_are_others(tmp_path):
    """And the checksum is another one, too: no column tells anything of a page to those who have not the key."""
    image = write_image(tmp_path / "i", random.Random(1), 100)
    tables = [parquet.read_table(fingerprint(tmp_path / str(place), [image], key=key)) for place, key in enumerate((None, KEY, OTHER))]
    for name in ("fingerprint", "checksum"):
        values = [{value for value in table[name].to_pylist() if value not in (0, bytes(16))} for table in tables]
        assert all(values)
        assert not (values[0] & values[1] | values[0] & values[2] | values[1] & values[2])
    assert tables[0]["class"].equals(tables[1]["class"])


def test_without_bytes(tmp_path):
    file = fingerprint(tmp_path / "f", [write_image(tmp_path / "i", random.Random(1), 5)])
    with pytest.raises(SourceError, match=rf"^{file}: .*i: there are no bytes of pages in it, and --exact needs them$"):
        run([file], exact=True)
    with pytest.raises(SourceError, match=rf"^{file}: .*i: a fingerprint file has no bytes of pages: it has their fingerprints already$"):
        fingerprint(tmp_path / "g", [tmp_path / "i", file])
    assert not (tmp_path / "g").exists()


def test_files_that_need_more_than_one_source(tmp_path):
    write_rows(tmp_path / "f", {"a": {0: 1}, "b": {0: 1, PAGE: 5}})
    write_rows(tmp_path / "none", {})
    opened = open_file(str(tmp_path / "f"))
    opened.close()  # without parts()
    parts = open_file(str(tmp_path / "f")).parts()
    assert [part.own for part in parts] == ["a", "b"]
    with pytest.raises(SourceError, match="without sources"):
        open_file(str(tmp_path / "none"))
    parts[0].close()
    with scan.Scan(parts[1:]) as running:
        assert running.run().pages == 2
    parts[1].close()


def test_a_file_that_is_cut_off_meanwhile(tmp_path):
    file = fingerprint(tmp_path / "f", [write_image(tmp_path / "i", random.Random(1), 3000)])
    source = open_file(str(file))
    os.truncate(file, 4096)
    with scan.Scan([source]) as running, pytest.raises(SourceError, match=rf"^{file}: .*i: damaged: "):
        running.run()
    source.close()
