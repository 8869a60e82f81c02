# SPDX-License-Identifier: GPL-2.0-only
"""ksm why: what it prints, and its options."""

import json
import os
import re
import sys

import pytest
from commands import PAGE, invoke, refused, write_image
from targets import Target

import ksm
from ksm.estimate import why_report
from ksm.estimate.reasons import BY_NAME, REASONS


@pytest.fixture
def start():
    targets = []

    def start(*lines, prefix=()):
        targets.append(Target(*prefix))
        for line in lines:
            targets[-1].do(line)
        return targets[-1]

    yield start
    for target in targets:
        target.end()


@pytest.fixture
def images(tmp_path):
    return [
        write_image(tmp_path / "a.img", [0, 0, 1, 1, *range(10, 20)]),
        write_image(tmp_path / "b.img", [0, 1, 2, *range(30, 40)]),
    ]


def why(*arguments, code=0):
    return invoke("why", "--interval", "0", *arguments, code=code)[0]


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


def test_a_report(images):
    found = lines(why(*images))
    assert " ".join(found[:2]) == (
        "Of 108.0 KiB, 12.0 KiB are merged (11.1 %), which frees 8.0 KiB; most of the   rest (88 %): no page is equal."
    )
    assert "Merged                          3  0.0  11.1" in found
    assert "  zeros, perhaps not there      3  0.0  11.1         0.0" in found
    text = " ".join(" ".join(found).split())
    assert "1. zeros, perhaps not there: 12.0 KiB, of which 100 % would merge, and free 8.0 KiB" in text
    assert any(line.startswith("Source") for line in found) and any(line.startswith("Region") for line in found)
    assert text.count("of a still image") == 1 and "- 2 sources: of a still image" in text


def test_mappings_are_called_by_the_beginnings_of_their_names(start):
    target = start(
        "s = area(20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS); fill(s, 0, [1000] * 20)",
        "import os; fd = os.memfd_create('guest'); os.ftruncate(fd, 30 * PAGE); m = mmap.mmap(fd, 30 * PAGE); m[:] = b'x' * 30 * PAGE",
    )
    found = lines(why(f"pid:{target.pid}"))
    at = next(number for number, line in enumerate(found) if line.startswith("Region"))
    assert re.match(r"[0-9a-f]+ memfd:g", found[at + 1])
    assert re.match(r"[0-9a-f]+ /dev/zero ", found[at + 2])
    assert "deleted" not in "".join(found)


def test_json(images):
    found = json.loads(why("--json", *images))
    pages = {reason["name"]: reason["pages"] for reason in found["reasons"]}
    assert pages == {"across": 3, "alone": 21, "zeros_apart": 3}
    assert [source["reasons"] for source in found["sources"]] == [
        {"across": 2, "alone": 10, "zeros_apart": 2}, {"across": 1, "alone": 11, "zeros_apart": 1},
    ]  # fmt: skip
    [region] = found["sources"][0]["regions"]
    assert (region["start"], region["end"], region["name"]) == (0, 14 * PAGE, "image")
    assert "rss" not in region
    scan = json.loads(invoke("scan", "--json", *images)[0])
    assert (found["ledger"], found["ksm"], found["passes"]) == (scan["ledger"], scan["ksm"], scan["passes"])
    assert found["quick"] is False
    for reason in found["reasons"]:
        assert reason["sentence"] == BY_NAME[reason["name"]].sentence


def test_zeros_that_count(images):
    pages = {reason["name"]: reason["pages"] for reason in json.loads(why("--json", "--zeros", "count", *images))["reasons"]}
    assert pages == {"across": 3, "alone": 21, "zero": 3}


def test_knobs_and_eras(images):
    found = json.loads(why("--json", "--zeros", "count", "--set", "use_zero_pages=1", "--set", "max_page_sharing=2", *images))
    pages = {reason["name"]: reason["pages"] for reason in found["reasons"]}
    assert pages == {"within": 2, "max_page_sharing": 1, "alone": 21, "zero": 3}
    text = " ".join(why("--zeros", "count", "--set", "max_page_sharing=2", *images).split())
    assert "1. equals are full (max_page_sharing): 8.0 KiB, of which 100 % have an equal now: 8.0 KiB could be freed (" in text
    for era in ("7.3", "6.1", "2.6.38"):
        found = json.loads(why("--json", "--era", era, *images))
        assert {reason["name"]: reason["pages"] for reason in found["reasons"]} == {"across": 3, "alone": 21, "zeros_apart": 3}


def test_the_story_of_a_page(images):
    text = why(*images, hex(2 * PAGE))
    assert text.startswith(f"{images[0]}, 0x2000 in 0x0-0xe000 image: merged across sources\n")
    assert "pass 1: its checksum was taken\n" in text
    assert "Pages in the same frame: 2\n" in text
    assert f"  {images[1]}, 0x1000\n" in text
    alone = json.loads(why("--json", *images, str(6 * PAGE + 5)))
    assert (alone["address"], alone["reason"], alone["same_frame"]) == (6 * PAGE, "alone", [])
    assert [visit["pass"] for visit in alone["visits"]] == [1, 2, 3]
    nowhere = json.loads(why("--json", *images, "0xffffffffff000"))
    assert (nowhere["region"], nowhere["reason"], nowhere["visits"]) == (None, "absent", [])


def test_snapshots(tmp_path):
    """Pages that differ between two snapshots are volatile."""
    texts = [write_image(tmp_path / "1", [1, 2, 3, 3]), write_image(tmp_path / "2", [1, 4, 3, 3])]
    found = json.loads(why("--json", "--as-passes", *texts))
    assert {reason["name"]: reason["pages"] for reason in found["reasons"]} == {"volatile": 1, "within": 2, "alone": 1}


def test_fingerprints(tmp_path, images):
    pytest.importorskip("pyarrow")
    file = str(tmp_path / "both.parquet")
    invoke("fingerprint", *images, "-o", file)
    found = json.loads(why("--json", "--zeros", "count", file))
    of_images = json.loads(why("--json", "--zeros", "count", *images))
    assert [source["reasons"] for source in found["sources"]] == [source["reasons"] for source in of_images["sources"]]
    assert "neither mappings" in found["sources"][0]["notes"][0]
    assert "--as-passes" in found["sources"][0]["notes"][1]


def test_memory_of_a_guest(start, tmp_path):
    """Shared memory of a hypervisor, as virtiofs wants it: what would merge, and what to do."""
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.symlink_to(os.path.realpath(sys.executable))
    target = start(
        "a = area(30); fill(a, 0, list(range(1000, 1030)))",
        "memory = os.memfd_create('memory-backend-memfd'); os.ftruncate(memory, 40 * PAGE); guest = mmap.mmap(memory, 40 * PAGE)",
        "fill(guest, 0, [*range(1000, 1020), *[5000] * 10, *range(6000, 6010)])",
        prefix=("sh", "-c", f'exec {qemu} "$1"'),
    )
    text = why(f"pid:{target.pid}")
    [chance] = re.findall(r"^\d\. (shared memory of a guest: .*(?:\n   .*)*)", text, re.MULTILINE)
    said = " ".join(chance.split())
    assert said.startswith("shared memory of a guest: 160.0 KiB, of which 75 % would merge, and free 116.0 KiB. What to do: ")
    assert "start QEMU without memory-backend share=on" in said
    # The same memory in another process, as virtiofsd has it, is the guest's, too, and counts once.
    other = start(f"memory = os.open('/proc/{target.pid}/fd/' + str({target.ask('[memory]')[0]}), os.O_RDWR)")
    other.do("guest = mmap.mmap(memory, 40 * PAGE); seen = sum(guest[at * PAGE] for at in range(20))")
    found = json.loads(why("--json", f"pid:{other.pid}", f"pid:{target.pid}"))
    reasons = found["sources"][0]["reasons"]
    assert reasons["guest"] >= 20 and "shared_memory" not in reasons
    assert [(each["pages"], each["freed"]) for each in found["reasons"] if each["name"] == "guest"] == [(40 + reasons["guest"], 29)]
    assert "?" in why("--quick", f"pid:{target.pid}").partition("shared memory of a guest")[2].partition("\n")[0]


def test_what_several_processes_map_counts_once(start):
    """A file that two processes map is one memory: its contents are read once, and its gain is that of one."""
    target = start("memory = area(20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS); fill(memory, 0, [1000] * 20)", "first = child()")
    child = target.ask("[first]")[0]
    target.do("tell(first, 'seen = sum(memory[at * PAGE] for at in range(20))')")
    found = json.loads(why("--json", f"pid:{target.pid}", f"pid:{child}"))
    [shared] = [reason for reason in found["reasons"] if reason["name"] == "shared_memory"]
    assert (shared["pages"], shared["equal"], shared["freed"]) == (40, 20, 19)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_narrow_terminals(images, monkeypatch, width, start):
    target = start("s = area(20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS); fill(s, 0, [1000] * 20)")
    monkeypatch.setenv("COLUMNS", str(width))
    for line in lines(why(f"pid:{target.pid}")):
        assert len(line) <= max(width, 46), line


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour(images, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert "\x1b" not in why(*images)


def test_ascii_is_enough(images):
    """With LANG=C there are no other characters, but those of names that were cut."""
    assert why(*images).replace("…", "").isascii()


def test_refusals(images):
    assert refused("why", "pid:999999999") == "ksm: pid 999999999: no such process"
    assert refused("why", images[0], f"0x1{'0' * 16}", code=2).startswith(f"ksm why: 0x1{'0' * 16}: an address has 64 bits")
    assert refused("why", images[0], "0xzz").startswith("ksm: 0xzz: ")
    assert refused("why", "--as-passes", images[0], code=2).startswith("ksm why: --as-passes needs two snapshots")
    assert refused("why", "--exact", "--key", "x", images[0], code=2).startswith("ksm why: --key is for fingerprints")


def test_the_library_says_the_same(images):
    found = ksm.why(images)
    assert found.reasons == {"across": 3, "alone": 21, "zeros_apart": 3}
    assert json.loads(json.dumps(why_report.as_json(found)))["reasons"] == json.loads(why("--json", *images))["reasons"]
    with pytest.raises(ValueError, match="max_page_sharing"):
        ksm.why(images, settings={"max_page_sharing": "x"})
    assert [reason.code for reason in REASONS if reason.name == "absent"] == [0]
    with pytest.raises(OSError, match="No such file"):
        ksm.why(["/no/such/file"])
    with pytest.raises(TypeError, match="sequence"):
        ksm.why(images[0])
    with pytest.raises(ValueError, match="64 bits"):
        ksm.why(images, -1)
