# SPDX-License-Identifier: GPL-2.0-only
"""ksm advise: the mappings that pay, and what a machine with them alone makes of it."""

import itertools
import json
import os
from collections import Counter

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import ksm
from ksm.cli.group import main
from ksm.estimate import advise_report
from ksm.estimate.advise import PAGE_SIZE, Found, gain_of, gains_of, value, worth_it
from ksm.estimate.scan import Scan
from ksm.sources import Host, open_source

# Areas that end with a page that cannot be written to, so that each is a mapping of its own
AREAS = """
def apart(pages):
    memory = area(pages + 1)
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(address(memory) + pages * PAGE), PAGE, 1)
    return memory
"""


WORK = """
def work():
    number = 0
    while not stop:
        number += 1
        fill(a, 0, [number] * 200)
"""


@pytest.fixture
def areas(target):
    """The addresses of: duplicates, noise, two mappings that are equal to each other, and noise with one pair."""
    target.do(f"exec({AREAS!r}, globals())")
    target.do("dup, noise, one, other, few = apart(300), apart(400), apart(200), apart(200), apart(300)")
    target.do("fill(dup, 0, [7] * 300); fill(noise, 0, list(range(1000, 1400)))")
    target.do("fill(one, 0, list(range(2000, 2200))); fill(other, 0, list(range(2000, 2200)))")
    target.do("fill(few, 0, [3000, 3000] + list(range(3001, 3299)))")
    return target.ask("map(address, (dup, noise, one, other, few))")


def regions_at(advice, addresses):
    found = []
    for address in addresses:
        [region] = [each for each in advice.regions if each.start <= address < each.end]
        found.append(region)
    return found


def test_what_pays(target, areas):
    advice = ksm.advise([f"pid:{target.pid}"], interval=0.0)
    dup, noise, one, other, few = regions_at(advice, areas)
    assert [region.advised for region in (dup, noise, one, other, few)] == [True, False, True, True, False]
    assert (dup.pages, dup.merging) == (300, 300)
    assert dup.profit == 300 * 4096 - 300 * 64
    assert dup.per_page == 1.0
    assert dup.gain == pytest.approx(298 * 4096 - 300 * 64, abs=2 * 4096)  # max_page_sharing 256: two copies are kept
    assert (noise.merging, noise.gain, noise.per_page) == (0, -400 * 64, None)
    assert one.gain == other.gain == 200 * 4096 - 200 * 64  # each pays only with the other one
    assert (few.merging, few.gain) == (2, 4096 - 300 * 64)
    assert few.per_page == 150
    gains = [region.gain for region in advice.regions]
    assert gains == sorted(gains, reverse=True)


def test_a_machine_with_the_advised_ones_alone(target, areas):
    """It frees what the advised mappings do, and keeps no rmap_item for others. prctl() has all."""
    advice = ksm.advise([f"pid:{target.pid}"], interval=0.0)
    advised = [region for region in advice.regions if region.advised]
    assert advice.advised.pages == sum(region.pages for region in advised)
    assert advice.advised.freed >= 298 + 200
    with_host = Host()
    source = open_source(f"pid:{target.pid}", with_host)
    try:
        with Scan([source]) as scan:
            ledger = scan.run(interval=0.0).ledger
    finally:
        source.close()
        with_host.close()
    assert advice.whole == (ledger.pages, ledger.freed, ledger.metadata, ledger.profit)
    assert advice.advised.profit > advice.whole.profit
    assert advice.whole.pages - advice.advised.pages >= 700


def test_memory_that_changes_does_not_pay(target):
    """A page that differs between the two readings does not merge."""
    target.do("a = area(200)")
    target.do("import threading; stop = []")
    target.do(f"exec({WORK!r}, globals())")
    target.do("thread = threading.Thread(target=work, daemon=True); thread.start()")
    [addr] = target.ask("[address(a)]")
    advice = ksm.advise([f"pid:{target.pid}"], interval=0.2)
    [region] = regions_at(advice, [addr])
    assert region.merging < 150


def test_several_processes_are_advised_together(start):
    """A mapping that pays only with that of another process."""
    targets = [start(), start()]
    for each in targets:
        each.do("a = area(300)")
        each.do("fill(a, 0, list(range(5000, 5300)))")
    addresses = [each.ask("[address(a)]")[0] for each in targets]
    both = ksm.advise([f"pid:{each.pid}" for each in targets], interval=0.0)
    for each, address in zip(targets, addresses, strict=True):
        [region] = [one for one in both.regions if one.source.startswith(f"pid {each.pid} ") and one.start <= address < one.end]
        assert region.advised
    text = [line for line, _ in advise_report.lines(both, 80)]
    for each, address in zip(targets, addresses, strict=True):
        assert any(line.startswith(f"  {each.pid}: madvise((void *){address:#x}, ") for line in text)
    alone = ksm.advise([f"pid:{targets[0].pid}"], interval=0.0)
    [region] = regions_at(alone, addresses[:1])
    assert not region.advised


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.dictionaries(st.integers(0, 5), st.integers(1, 3))), max_size=6))
def test_no_other_choice_gives_more(mappings):
    """The mappings that are chosen give as much as the best of all choices, and are the largest of those."""
    found = [Found(extra + zeros + sum(merged.values()), zeros, Counter(merged)) for extra, zeros, merged in mappings]

    def profit(choice):
        total = Counter()
        for number in choice:
            total.update(found[number].merged)
        return sum(map(value, total.values())) + sum(found[number].zeros * PAGE_SIZE - found[number].pages * 64 for number in choice)

    chosen = worth_it(found)
    every = [choice for size in range(len(found) + 1) for choice in itertools.combinations(range(len(found)), size)]
    assert profit(chosen) == max(map(profit, every))
    gains = list(gains_of(found, chosen))
    for number in range(len(found)):
        if number in chosen:
            assert gains[number] == profit(chosen) - profit(chosen - {number}) >= 0
        else:
            assert gains[number] == profit(chosen | {number}) - profit(chosen) <= 0 or not found[number].pages
    assert gain_of(Found(3, 0, Counter()), Counter()) == -192


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["advise", *map(str, arguments)], prog_name="ksm", catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_command(target, areas):
    out, err = run("--interval", "0", f"pid:{target.pid}")
    assert err == ""
    assert out.startswith(("Advise the mappings: madvise() for ", "prctl(PR_SET_MEMORY_MERGE) does as well"))
    assert f"  madvise((void *){areas[0]:#x}, {300 * 4096:#x}, MADV_MERGEABLE);" in out.splitlines()
    found = json.loads(run("--json", "--interval", "0", f"pid:{target.pid}")[0])
    assert found["better"] in ("madvise", "prctl")
    assert found["regions"][0]["call"].startswith("madvise((void *)0x")


def test_where_it_costs_is_shown(target, areas):
    """After the mappings that pay come those that cost most."""
    advice = ksm.advise([f"pid:{target.pid}"], interval=0.0)
    shown = [line for line, _ in advise_report.lines(advice, 80) if line[:2] in ("* ", "  ") and line[2:3].isalnum() and "-" in line]
    starts = [int(line[2:].partition("-")[0], 16) for line in shown if not line.startswith("  and ") and "madvise" not in line]
    gains = {region.start: (region.advised, region.gain) for region in advice.regions}
    pays, costs = ([gains[start][1] for start in starts if gains[start][0] is advised] for advised in (True, False))
    assert pays == sorted(pays, reverse=True) and len(pays) >= 3
    assert costs == sorted(gain for advised, gain in gains.values() if not advised)[: len(costs)] and costs[0] <= -400 * 64


@pytest.mark.parametrize("width", [40, 80, 120])
def test_columns_that_are_left_out_are_not_explained(target, areas, width):
    text = [line for line, _ in advise_report.lines(ksm.advise([f"pid:{target.pid}"], interval=0.0), width)]
    [head] = [line for line in text if line.startswith("  Mapping")]
    for name in ("gain", "items", "ksm profit"):
        assert any(line.startswith(f"- {name}: ") for line in text) is (f"  {name}" in head)


def test_narrow_terminals(target, areas):
    advice = ksm.advise([f"pid:{target.pid}"], interval=0.0)
    for width in (120, 80, 60, 40):
        every = [line for line, _ in advise_report.lines(advice, width)]
        assert max(len(line) for line in every if not line.startswith("  madvise(") and "gdb" not in line) <= width


def test_refused(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(4096))
    assert run(path, code=2)[1] == f"ksm advise: {path}: a process is written as pid:N (ksm advise --help)\n"
    assert run(f"pid:{os.getpid()}", code=1)[1] == f"ksm: pid {os.getpid()}: that is this ksm\n"
    assert "Missing argument" in run(code=2)[1]
    with pytest.raises(OSError, match="that is this ksm"):
        ksm.advise([f"pid:{os.getpid()}"])
    with pytest.raises(ValueError, match="KSM has no nothing"):
        ksm.advise([f"pid:{os.getppid()}"], settings={"nothing": 1})
    with pytest.raises(TypeError):
        ksm.advise("pid:1")
