# SPDX-License-Identifier: GPL-2.0-only
"""Pages that merge across tenants, compared with a count that knows nothing of KSM."""

import gzip
import json
import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from commands import invoke, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksm.estimate import closer, report, tenants_report
from ksm.estimate.closer import CloserScan
from ksm.estimate.found import KINDS, NO_TENANT
from ksm.estimate.report import columns
from ksm.fingerprint.classes import CLASSES, classes_of
from ksm.sources import Host, SourceError, open_file, open_source, open_sources

from .test_scan import PAGE, saved

KIND_OF = {part: name for name, parts, _ in KINDS for part in parts}
TEXT = b"a line of text, as there are many\n"


def contents(number):
    """A page of each class, by its number: zeros, one value, one word, text, addresses, and anything else."""
    kind, rest = number % 6, number // 6 + 1
    if kind == 0:
        return bytes([rest - 1]) * PAGE
    if kind == 1:
        return (rest << 40 | 1).to_bytes(8, "little") * (PAGE // 8)
    if kind == 2:
        return (b"%d" % rest + TEXT * 200)[:PAGE]
    if kind == 3:
        return b"".join((0x7F0000000000 + 4096 * rest + 8 * place).to_bytes(8, "little") for place in range(PAGE // 8))
    return random.Random(number).randbytes(PAGE)


def kind_of(number):
    return KIND_OF[CLASSES[classes_of(contents(number))[0]]]


def write(path, numbers):
    path.write_bytes(b"".join(map(contents, numbers)))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tenants")


def between(paths, owners, **options):
    """What is between tenants, of machines of fingerprints and of bytes: the same."""
    found = []
    for exact in (False, True):
        sources = [open_file(path) for path in paths]
        owned = {}
        for source, owner in zip(sources, owners, strict=True):
            if owner:
                owned.setdefault(owner, []).append(source)
        with CloserScan(sources, exact=exact, tenants=owned, **options) as running:
            found.append(running.run())
        for source in sources:
            source.close()
    assert found[0] == found[1]
    return found[0]


numbers = st.lists(st.integers(0, 23), min_size=1, max_size=40)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(numbers, st.sampled_from(["a", "b", ""])), min_size=1, max_size=4), st.sampled_from([2, 3, 256]))
def test_what_merges_across_tenants(folder, images, most):
    paths = [write(folder / f"image{place}", image) for place, (image, _) in enumerate(images)]
    result = between(paths, [owner for _, owner in images], settings={"max_page_sharing": str(most)})
    found = result.tenants
    each = {}
    for image, owner in sorted(images, key=lambda one: not one[1]):
        each.setdefault(owner or NO_TENANT, Counter()).update(image)
    names = [tenant.name for tenant in found.tenants]
    assert set(names) == set(each) and (NO_TENANT not in names or names[-1] == NO_TENANT)
    # Everything adds up to the ledger.
    assert sum(tenant.pages for tenant in found.tenants) == result.ledger.pages
    assert found.freed == result.ledger.freed and found.cost == found.freed - found.apart
    assert [tenant.apart for tenant in found.tenants] == [sum(saved(count, most) for count in each[name].values()) for name in names]
    assert sum(tenant.apart for tenant in found.tenants) == found.apart
    assert sum(tenant.merged for tenant in found.tenants) == found.merged
    if most == 256:
        common = {number for number in range(24) if sum(number in counts for counts in each.values()) > 1}
        for kind in found.kinds:
            own = {number for number in common if kind_of(number) == kind.name}
            assert kind.contents == len(own)
            assert kind.tenants == [sum(each[name][number] for number in own) for name in names]
            assert kind.pages == sum(kind.tenants)
            assert kind.frames == sum(sum(number in counts for counts in each.values()) - 1 for number in own)
        assert found.cost == sum(kind.frames for kind in found.kinds)


def test_a_shared_page_costs_no_more_than_the_merge_of_each_tenant(folder):
    """With max_page_sharing, what forbidding costs is not what is shared: pages of one tenant fill the frames of another one."""
    result = between([write(folder / "fill0", [1] * 3), write(folder / "fill1", [1] * 3)], ["a", "b"], settings={"max_page_sharing": "2"})
    assert (result.ledger.freed, result.tenants.apart, result.tenants.cost) == (3, 2, 1)


def test_classes_of_what_is_read_once(folder):
    """Packed files are read again; of a pipe, nothing can be said but of zeros."""
    plain = write(folder / "plain", [0, 2, 3])
    with gzip.open(folder / "packed", "wb") as file:
        file.write(b"".join(map(contents, [0, 2, 3])))
    found = {kind.name: kind.contents for kind in between([plain, str(folder / "packed")], ["a", "b"]).tenants.kinds}
    assert (found["zero"], found["text"], found["pointers"], found.get("unknown", 0)) == (1, 1, 1, 0)

    def pipe():
        ours, theirs = os.pipe()
        os.write(theirs, b"".join(map(contents, [0, 2, 3])))
        os.close(theirs)
        return open_file(f"/dev/fd/{ours}")

    sources = [pipe(), pipe()]
    with CloserScan(sources, exact=False, tenants={"a": sources[:1], "b": sources[1:]}) as running:
        found = {kind.name: kind.contents for kind in running.run().tenants.kinds}
    for source in sources:
        source.close()
    assert (found["zero"], found["unknown"]) == (1, 2)


def test_fingerprints_have_their_classes(folder):
    pytest.importorskip("pyarrow")
    from ksm.sources.save import save_file

    sources = [open_file(write(folder / name, [0, 1, 2, 3, 4])) for name in ("one", "two")]
    for place, source in enumerate(sources):
        save_file(str(folder / f"{place}.parquet"), [source], progress=lambda *_: None)
        source.close()
    opened = [open_file(str(folder / f"{place}.parquet")) for place in range(2)]
    with CloserScan(opened, tenants={"a": opened[:1], "b": opened[1:]}) as running:
        kinds = running.run().tenants.kinds
    for source in opened:
        source.close()
    assert {kind.name: kind.contents for kind in kinds} == {"zero": 1, "one value": 1, "text": 1, "code": 0, "pointers": 1, "other": 1}


def test_processes_of_two_tenants(tmp_path):
    """A process is read again for the classes; what it has with an image is one content."""
    code = (
        "import mmap, sys\n"
        "data = mmap.mmap(-1, 50 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        f"data.write({contents(2)!r} * 50)\n"
        "print(flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        host = Host()
        sources = [open_source(f"pid:{child.pid}", host), open_file(write(tmp_path / "image", [2]))]
        with CloserScan(sources, tenants={"a": sources[:1], "b": sources[1:]}) as running:
            found = running.run(interval=0).tenants
        for source in sources:
            source.close()
        host.close()
        child.stdin.close()
    [text] = [kind for kind in found.kinds if kind.name == "text"]
    assert (text.contents, text.tenants) == (1, [50, 1])
    assert found.tenants[0].pages > 50


FORKS = """
import mmap, os, sys
data = mmap.mmap(-1, 4096 * 1200, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
data.write(os.urandom(4096) * 600 + bytes(4096) * 300 + os.urandom(4096 * 300))
children = []
for number in range(3):
    children.append(os.fork())
    if not children[-1]:
        data[: 4096 * 100] = os.urandom(4096) * 100
        sys.stdin.read()
        os._exit(0)
print(*children, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("most, off", [(256, 2), (16, 30)])
def test_one_tenant_has_nothing_to_forbid(most, off):
    """Also where his processes share pages since a fork, each of which counts against max_page_sharing.

    The copy has no forks. So pages come to other frames of their contents, which makes a difference where max_page_sharing is small.
    """
    with subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        pids = [str(child.pid), *child.stdout.readline().split()]
        host = Host()
        sources, _ = open_sources([f"pid:{pid}" for pid in pids], host)
        with CloserScan(sources, tenants={"all": sources}, settings={"max_page_sharing": str(most)}) as running:
            result = running.run(passes=4, interval=0)
        for source in sources:
            source.close()
        host.close()
        child.stdin.close()
    assert result.ledger.freed > 800 and result.ledger.volatile < 20
    assert result.tenants.merged == 0
    assert abs(result.tenants.cost) <= off


def test_memory_that_is_not_there(folder, monkeypatch):
    source = open_file(write(folder / "large", [2] * 100))
    monkeypatch.setattr(closer, "available_memory", lambda: 5999)
    with CloserScan([source], details=True) as running, pytest.raises(SourceError, match="to look who shares what takes 5"):
        running.run()
    source.close()


# The command

def test_the_command(folder):
    a, b, c = (write(folder / name, image) for name, image in (("a", [0, 2, 2, 4]), ("b", [2, 4, 5]), ("c", [5, 9])))
    out, _ = invoke("scan", "--tenant", f"A={a}", "--tenant", f"B={b}", c, "--zeros", "count", "--json")
    data = json.loads(out)["tenants"]
    assert [(each["name"], each["pages"], each["merged"], each["apart"]) for each in data["tenants"]] == [
        ("A", 4, 3, 1), ("B", 3, 3, 0), (NO_TENANT, 2, 1, 0)
    ]
    assert (data["merged"], data["freed"], data["apart"], data["cost"]) == (7, 4, 1, 3)
    text, _ = invoke("scan", "--tenant", f"A={a}", "--tenant", f"B={b}", c, "--zeros", "count")
    assert "28.0 KiB of pages merge with those of another tenant. To forbid that would cost" in text
    assert "text: 1 content in 3 pages" in text


@pytest.mark.parametrize("arguments, line", [
    (["--tenant", "a"], "it is written NAME=SOURCE,SOURCE,..."),
    (["--tenant", "=x"], "it is written NAME=SOURCE,SOURCE,..."),
    (["--tenant", "a=x,,y"], "it is written NAME=SOURCE,SOURCE,..."),
    (["--tenant", "a=x", "--tenant", "b=x"], "b=x: x is a's already"),
    (["--tenant", "a=x,x"], "a=x,x: x is a's already"),
    (["--tenant", "no tenant=x"], "no tenant is the name of all other sources"),
    (["--tenant", "a=x", "--as-passes", "x", "y"], "--tenant needs memory of one moment"),
])
def test_wrong_usage(arguments, line):
    assert line in refused("scan", *arguments, code=2)


def test_a_file_with_a_comma_in_its_name(folder):
    path = write(folder / "a,b", [2, 3])
    assert "No page merges with one of another tenant" in invoke("scan", "--tenant", f"x={path}")[0]


def test_names_that_direct_a_terminal(folder):
    path = write(folder / "plain", [2, 2])
    assert "\x1b" not in invoke("scan", "--tenant", f"\x1b[31m={path}")[0]


def test_lines_fit_into_a_narrow_terminal(folder):
    result = between([write(folder / "n0", [0, 2, 3, 4]), write(folder / "n1", [0, 2, 3, 4])], ["a" * 60, "\u65e5\u672c" * 20])
    for width in (40, 60, 80, 120):
        assert max(columns(text) for text, _ in tenants_report.lines(result.tenants, width)) <= width
    assert report.as_json(result)["tenants"]["how"]
