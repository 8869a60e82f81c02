# SPDX-License-Identifier: GPL-2.0-only
"""What a scan finds in images, compared with a count that knows nothing of KSM."""

import errno
import gzip
import os
import random
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ksm
from ksm.estimate import report, scan
from ksm.estimate import settings as settings_of_scan
from ksm.estimate.savings import Tally
from ksm.sources import Source, SourceError, SourceGone, open_file
from ksm.sources.pieces import BUFFER

PAGE = 4096
ZEROS = bytes(PAGE)


def page(number):
    return number.to_bytes(8, "little") * (PAGE // 8)


def write_image(path, numbers):
    """An image of numbered pages; None is a hole."""
    with open(path, "wb") as file:
        for place, number in enumerate(numbers):
            if number is not None:
                file.seek(place * PAGE)
                file.write(page(number))
        file.truncate(len(numbers) * PAGE)
    return str(path)


def run(paths, passes=None, **options):
    """What a scan finds: the same in a machine of fingerprints, with one thread and with three, as in one of bytes."""
    results = []
    for how in ({"threads": 1}, {"threads": 3}, {"exact": True}):
        sources = [open_file(path, "absent") for path in paths]
        try:
            with scan.Scan(sources, **how, **options) as running:
                results.append(running.run(passes))
        finally:
            for source in sources:
                source.close()
    assert results[0] == results[1] == results[2]
    return results[0]


UNLIMITED = 2**31  # sharers of a page in 2011


def saved(count, most=256):
    """Pages saved of `count` equal ones, when at most `most` may share a page."""
    return count - -(-count // most)


def check(result, images, most=256):
    """Assert that the result is what counting equal pages gives."""
    everything = Counter(number for image in images for number in image if number is not None)
    zero = saved(everything.pop(0, 0), most)
    rest = sum(saved(count, most) for count in everything.values())
    assert result.savings.zero == zero
    assert result.savings.pages == zero + rest
    if max(everything.values(), default=0) <= most:
        across = sum(sum(number in image for image in images) - 1 for number in everything)
        assert result.savings[1:] == (rest - across, across)
    values = result.ksm
    assert values["pages_sharing"] + values.get("ksm_zero_pages", 0) == result.savings.pages == result.savings.bytes // PAGE
    if result.era in ("7.3", "6.12"):
        assert values["general_profit"] == result.savings.bytes - 64 * sum(source.ksm_stat["ksm_rmap_items"] for source in result.sources)
    elif result.era == "6.1":
        assert sum(source.ksm_stat["ksm_merging_pages"] for source in result.sources) == values["pages_sharing"] + values["pages_shared"]
    else:
        assert all(source.ksm_stat == {} for source in result.sources)
    assert [source.pages for source in result.sources] == [sum(number is not None for number in image) for image in images]
    assert values["pages_volatile"] == result.skipped == 0
    assert result.settled


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


numbers = st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(numbers, min_size=1, max_size=4), st.sampled_from([2, 3, 4, 256, UNLIMITED]), st.sampled_from(["7.3", "6.12", "6.1"]))
def test_savings_are_what_a_count_says(folder, images, most, era):
    paths = [write_image(folder / f"image{place}", image) for place, image in enumerate(images)]
    if os.stat(paths[0]).st_blocks * 512 > PAGE * (sum(number is not None for number in images[0]) + 1):
        images = [[number or 0 for number in image] for image in images]  # a file system without holes
    options = {"era": "2.6.38"} if most == UNLIMITED else {"era": era, "settings": {"max_page_sharing": str(most)}}
    check(run(paths, **options), images, most)


def known_image(pages, seed):
    """Zeros, a few contents that are everywhere, many that are there twice, and a third that is unique."""
    chance = random.Random(seed)
    return [chance.choice((0, chance.randrange(1, 5), chance.randrange(5, pages // 4), 10**9 * seed + place)) for place in range(pages)]


def check_known_image(folder, pages, era="6.12"):
    images = [known_image(pages - pages // 8, 1), known_image(pages // 8, 2)]
    paths = [write_image(folder / f"known{place}", image) for place, image in enumerate(images)]
    check(run(paths, era=era), images, UNLIMITED if era == "2.6.38" else 256)
    for path in paths:
        os.unlink(path)


@pytest.mark.parametrize("era", ksm.machine.ERAS)
def test_16_mib_with_known_duplicates(folder, era):
    check_known_image(folder, 4096, era)


def test_what_6_1_did_not_count(folder):
    """With use_zero_pages it freed all pages of zeros, and no counter showed it."""
    path = write_image(folder / "uncounted", [0] * 600 + [1] * 300 + [2, 3])
    old, new = (run([path], era=era, settings={"use_zero_pages": "1"}) for era in ("6.1", "6.12"))
    assert old.savings == new.savings == (600, 298, 0)
    for result in (old, new):
        assert (result.passes, result.settled, result.pages, result.ledger.kept) == (3, True, 902, 4)
    assert len(old.ksm) == 14 and "ksm_zero_pages" not in old.ksm
    assert (old.ksm["pages_sharing"], new.ksm["pages_sharing"], new.ksm["ksm_zero_pages"]) == (298, 298, 600)
    assert old.sources[0].ksm_stat == {name: new.sources[0].ksm_stat[name] for name in ("ksm_rmap_items", "ksm_merging_pages")}
    assert run([path], era="6.1").savings == (597, 298, 0)


def test_pages_of_6_1_that_become_the_zero_page_are_a_change(folder):
    """Nothing else changes in a pass: the counters of KSM stay, and the scan must not take it for settled."""
    path = write_image(folder / "zeros", [0] * 40)
    source = open_file(path, "absent")
    counted = []
    with scan.Scan([source], era="6.1", settings={"use_zero_pages": "1"}) as running:
        for number in range(3):
            running.read(number)
            running.scan(number + 1)
            counted.append(running.uncounted())
            assert [running.counter(name) for name in scan.PASS_STATE] == [0] * len(scan.PASS_STATE)
    source.close()
    assert counted == [40, 0, 0]


def test_what_2011_did_not_know(folder):
    """The KSM of 2011 has no zero page of its own, no limit to sharing, and none of the counters that came later."""
    path = write_image(folder / "old", [0] * 600 + [1] * 300 + [2, 3])
    old = run([path], era="2.6.38")
    assert set(old.ksm) == {
        "run", "pages_to_scan", "sleep_millisecs", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans",
    }  # fmt: skip
    assert old.savings == (599, 299, 0)
    assert [old.ksm[name] for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")] == [2, 898, 2, 0]
    assert (old.passes, old.settled, old.skipped, old.sources[0].ksm_stat) == (3, True, 0, {})
    assert run([path]).savings == (597, 298, 0)
    with ksm.Machine("1M", era="2.6.38") as machine:
        process = machine.spawn()
        assert process.ksm_stat() == {}
        with pytest.raises(AttributeError, match=r"^KSM of this era has no ksm_zero_pages$"):
            _ = process.ksm_zero_pages
    with pytest.raises(settings_of_scan.SettingError, match=r"^KSM has no smart_scan; there are sleep_millisecs, pages_to_scan, run$"):
        settings_of_scan.check_settings({"smart_scan": "1"}, "2.6.38")


@pytest.mark.slow
def test_1_gib_with_known_duplicates(folder):
    check_known_image(folder, 262144)


def test_zero_pages_with_and_without_the_knob(folder):
    image = [0] * 100 + [1, 1] + list(range(10, 20))
    path = write_image(folder / "zeros", image)
    without, using = run([path]), run([path], settings={"use_zero_pages": "1"})
    assert without.savings == (99, 1, 0)
    assert without.ksm["ksm_zero_pages"] == 0
    assert using.savings == (100, 1, 0)  # the kernel's zero page was there already
    assert using.ksm["ksm_zero_pages"] == using.sources[0].ksm_stat["ksm_zero_pages"] == 100
    assert using.ksm["pages_sharing"] == 1


def test_the_same_image_twice(folder):
    path = write_image(folder / "twice", [1, 1, 2, 3])
    assert run([path, path]).savings == (0, 2, 3)


def test_passes(folder):
    path = write_image(folder / "passes", [1, 1, 2])
    assert run([path]).passes == 3
    one = run([path], passes=1)
    assert (one.passes, one.settled, one.savings.pages, one.ksm["pages_volatile"]) == (1, False, 0, 3)
    many = run([path], passes=8)
    # In the last pass smart_scan has skipped the unique page. KSM counts it as volatile, the report does not.
    assert (many.passes, many.settled, many.savings.pages) == (8, True, 1)
    assert many.ksm["pages_volatile"] == many.skipped == 1


class Changing(Source):
    """Live memory: half of it is equal and still, the rest changes in every pass. The process is gone before pass `end`."""

    kind = "process"
    live = True

    def __init__(self, name="changing", end=99):
        super().__init__(name)
        self.copied = 40 * PAGE
        self.end = end

    def pieces(self):
        return iter(())

    def attach(self, machine):
        self.addr = self.spawn(machine).mmap(40 * PAGE)
        self.refresh(0)

    def refresh(self, number):
        if number >= self.end:
            raise SourceGone(f"{self.name}: gone")
        self.process.update(self.addr, page(7) * 20 + b"".join(page(1000 * number + place) for place in range(8, 28)))

    def ranges(self):
        return [(self.addr, 40 * PAGE)]


def test_pages_that_change_are_volatile():
    with scan.Scan([Changing()]) as running:
        result = running.run(interval=0)
    assert (result.live, result.settled, result.passes) == (True, True, 3)
    assert result.ksm["pages_volatile"] == 20
    assert result.savings == (0, 19, 0)


class Fleeting(Changing):
    """Equal pages that never hold still long enough to be compared."""

    def refresh(self, number):
        self.process.update(self.addr, page(1000 + number) * 40)


def test_volatile_pages_may_be_equal():
    with scan.Scan([Fleeting()]) as running:
        result = running.run(interval=0)
    assert (result.settled, result.passes, result.savings.pages) == (True, 3, 0)
    assert report.answer(result).startswith("KSM found nothing to free in 3 passes over ")


class Restless(Changing):
    """Live memory that gets two more equal pages before every pass."""

    def refresh(self, number):
        pages = min(40, 2 * number + 2)
        self.process.update(self.addr, b"".join(page(place // 2 + 1) for place in range(pages)))


def test_live_memory_that_never_settles():
    with scan.Scan([Restless()]) as running:
        result = running.run(interval=0)
    assert (result.settled, result.passes) == (False, 10)
    assert "does not hold still" in report.how_it_ended(result)


def test_who_goes_is_left_out():
    with scan.Scan([Changing("a"), Changing("b", 2), Changing("c", 0)]) as running:
        result = running.run(interval=0)
    assert [source.name for source in result.sources] == ["a"]
    assert result.notes == ["skipped c: gone", "skipped b: gone"]
    assert result.savings == (0, 19, 0)
    with scan.Scan([Changing("a"), *(Changing(str(place), 1) for place in range(6))]) as running:
        result = running.run(interval=0)
    assert result.notes == ["skipped 6 processes that exited, grew too large or became unreadable during the scan"]
    with scan.Scan([Changing("a", 1)]) as running, pytest.raises(SourceGone, match=r"^a: gone$"):
        running.run(interval=0)


class Growing(Changing):
    """Live memory that has grown too large before pass `end`."""

    def refresh(self, number):
        if number >= self.end:
            raise SourceError(f"{self.name}: its memory has grown too large for this scan")
        super().refresh(number)


def test_who_grows_too_large_is_left_out():
    with scan.Scan([Changing("a"), Growing("b", 2), Growing("c", 0)]) as running:
        result = running.run(interval=0)
    assert [source.name for source in result.sources] == ["a"]
    assert result.notes == [f"skipped {name}: its memory has grown too large for this scan" for name in "cb"]
    assert result.savings == (0, 19, 0)
    with scan.Scan([Growing("a", 1)]) as running, pytest.raises(SourceError, match=r"^a: its memory has grown too large"):
        running.run(interval=0)


def test_a_file_that_was_asked_for_is_not_left_out(folder, monkeypatch):
    sources = [open_file(write_image(folder / name, [1, 2])) for name in ("there", "broken")]

    def attach(machine):
        raise SourceError("broken: was truncated meanwhile")

    monkeypatch.setattr(sources[1], "attach", attach)
    with scan.Scan(sources) as running, pytest.raises(SourceError, match=r"^broken: "):
        running.run()
    for source in sources:
        source.close()


def test_progress_and_waiting(folder):
    seen = []
    path = write_image(folder / "progress", list(range(100)))
    sources = [open_file(path), Changing()]
    with scan.Scan(sources, progress=lambda *step: seen.append(step)) as running:
        running.run(passes=2, interval=0.01)
    sources[0].close()
    assert [what for what, _, _ in seen] == [
        f"mapping {path}", "mapping changing", "pass 1", "waiting 10 ms after pass 1", f"reading {path}", "reading changing", "pass 2",
    ]  # fmt: skip
    assert ("pass 2", 140, 140) in seen


def test_settings():
    with pytest.raises(settings_of_scan.SettingError, match=r"^KSM has no nonsense; there are .*max_page_sharing"):
        settings_of_scan.check_settings({"nonsense": "1"})
    with pytest.raises(settings_of_scan.SettingError, match=r"^full_scans can only be read; there are "):
        settings_of_scan.check_settings({"full_scans": "1"})
    for name, value in (("max_page_sharing", "1"), ("run", "3"), ("pages_to_scan", "x"), ("advisor_mode", "no")):
        with pytest.raises(settings_of_scan.SettingError, match=f"^{name}={value}: Invalid argument$"):
            settings_of_scan.check_settings({name: value})
    with ksm.Machine("1M", max_memory="1M") as machine:
        writable = settings_of_scan.writable(machine)
        assert set(machine.ksm.names()) - set(writable) == {
            "pages_scanned", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "pages_skipped", "ksm_zero_pages",
            "full_scans", "stable_node_chains", "stable_node_dups", "general_profit",
        }  # fmt: skip
        # The value that a file shows can be written to it, and changes nothing.
        before = machine.ksm.attributes()
        settings_of_scan.apply_settings(machine, {name: str(before[name]) for name in writable})
        settings_of_scan.apply_settings(machine, {"run": "1"})
        assert machine.ksm.attributes() == before


def test_size():
    assert [*map(scan.size, (0, PAGE, 1 << 20, 5 << 29, 3 << 40))] == ["0.0 KiB", "4.0 KiB", "1.0 MiB", "2.5 GiB", "3,072.0 GiB"]


def test_memory_that_is_not_there(monkeypatch, folder):
    working = scan.WORKING + 4 * BUFFER  # more than a scan with three threads takes
    monkeypatch.setattr(scan, "available_memory", lambda: working + 100 * PAGE)
    large = Changing()
    large.copied = 100_000 * PAGE
    with pytest.raises(SourceError, match=re.escape("not enough memory: the scan needs 411.3 MiB, and 10.4 MiB are available")):
        scan.make_machine([large], exact=True)
    with pytest.raises(SourceError, match=re.escape("not enough memory: the scan needs 23.8 MiB, and 10.4 MiB are available") + "$"):
        scan.make_machine([large])
    with pytest.raises(SourceError, match=re.escape("are available; scan fewer at once (pid:N for a process)")):
        scan.make_machine([large, large])
    image = open_file(write_image(folder / "one", [1]))
    image.copied, large.copied = 90_000 * PAGE, 0
    with pytest.raises(SourceError, match=r"are available$"):
        scan.make_machine([image])
    image.copied = 1000 * PAGE
    with pytest.raises(SourceError, match=re.escape("available; without --exact, it needs 8.8 MiB")):
        scan.make_machine([image], exact=True)
    image.close()
    # An image is mapped; only its metadata takes memory.
    run([write_image(folder / "small", [1] * 1000)])
    monkeypatch.undo()
    endless = Changing()
    endless.mapped = 1 << 45
    monkeypatch.setattr(scan, "available_memory", lambda: 1 << 60)
    with pytest.raises(SourceError, match="are too much for one scan"):
        scan.make_machine([endless], exact=True)


@pytest.mark.parametrize("equal", [1, 2, 50])
def test_a_scan_takes_no_more_memory_than_it_says(folder, equal):
    """In a cgroup with a limit, one that does is killed."""
    path = write_image(folder / "forecast", [1 + place // equal for place in range(30_000)])
    code = """if True:
        import resource, sys
        from ksm.estimate import scan
        from ksm.sources import open_file
        source = open_file(sys.argv[1])
        forecast = (source.copied + source.mapped) // 4096 * scan.PAGE_OF_FINGERPRINT + scan.WORKING + 2 * scan.BUFFER
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with scan.Scan([source], threads=2, exact=False) as running:
            pages = running.run().pages
        print(pages, forecast - 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
    """
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(ksm.__file__))}
    done = subprocess.run([sys.executable, "-c", code, path], env=environment, capture_output=True, text=True, check=True)
    pages, left = map(int, done.stdout.split())
    assert pages == 30_000
    assert left >= 0
    os.unlink(path)


@given(st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=4))
@settings(max_examples=30, deadline=None)
def test_tally(sources):
    """The page tables are made by hand: 0 is no page, 1 a page of zeros, 2 KSM's zero page, 3 a page that is not merged."""
    with ksm.Machine("1M") as machine:
        process = machine.spawn()
        addr = process.mmap(3 * PAGE)
        process.write(addr, ZEROS + page(1) + page(2))
        frames = [word >> 8 for word in process.page_table(addr, 3 * PAGE)]
        words = [0, frames[0] << 8 | 2, 12, frames[2] << 8 | 16, frames[1] << 8 | 2, frames[2] << 8 | 2]
        tally = Tally(machine)
        for numbers in sources:
            tally.next_source()
            table = process.page_table(addr, 0)
            table.extend(words[number] for number in numbers)
            assert tally.add(table) == sum(number != 0 for number in numbers)
        zeros = sum(numbers.count(1) for numbers in sources)
        knob = sum(numbers.count(2) for numbers in sources)
        assert tally.zero == max(0, zeros - 1) + knob
        merged = [[numbers.count(kind) for numbers in sources if kind in numbers] for kind in (4, 5)]
        assert tally.within == sum(sum(counts) - len(counts) for counts in merged)
        assert tally.across == sum(len(counts) - 1 for counts in merged if counts)


def test_tally_wants_a_source():
    with ksm.Machine("1M") as machine:
        tally = Tally(machine)
        with pytest.raises(ValueError, match="next_source"):
            tally.add(memoryview(b"").cast("L"))


def test_tally_of_frames_that_are_not_there(tmp_path):
    """Frames between the memory and an image, between images, of an image that is gone, and beyond all."""
    path = tmp_path / "image"
    path.write_bytes(b"i" * 2 * PAGE)
    with ksm.Machine("1M", max_memory="16M") as machine, open(path, "rb") as image:
        first, second = machine.spawn(), machine.spawn()
        frames = [process.page_table(process.mmap_image(image), PAGE)[0] >> 8 for process in (first, second)]
        assert frames == [512, 1024]
        first.exit()
        tally = Tally(machine)
        tally.next_source()
        table = second.page_table(0, 0)
        for frame in (0, 255, 1024, 1025):
            table.append(frame << 8 | ksm.PAGE_PRESENT | ksm.PAGE_KSM)
        assert tally.add(table) == 4
        for frame in (256, 511, 512, 513, 514, 1023, 1026, 4095, 1 << 50):
            with pytest.raises(ValueError, match="has not"):
                tally.add(memoryview((frame << 8 | ksm.PAGE_PRESENT | ksm.PAGE_KSM).to_bytes(8, "little")).cast("L"))
            with pytest.raises(OSError, match="memory_failure") as caught:
                machine.memory_failure(frame)
            assert caught.value.errno == errno.ENXIO
        assert machine.check() == []


def test_a_packed_image_with_its_bytes(folder):
    """Nobody knows before how large it is."""
    pages = (100 << 20) // PAGE
    path = folder / "packed.gz"
    with gzip.open(path, "wb", 1) as file:
        for number in range(pages):
            file.write(page(number % (pages // 2)))
    assert run([str(path)], passes=2).savings == (1, pages // 2 - 1, 0)
