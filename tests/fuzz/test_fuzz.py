# SPDX-License-Identifier: GPL-2.0-only
"""The fuzzer itself: lives come from their seeds, a shadow knows what memory has to be, and faults are found, reported and shrunk."""

import contextlib
import ctypes
import errno
import json
import operator
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import ksm
from fuzz import odd, refuse, sanitizers
from fuzz.grammar import ACTIONS
from fuzz.hunt import Hunt, live
from fuzz.life import KINDS, LIVES, make_life
from fuzz.player import Player
from fuzz.roll import FIXED
from fuzz.shadow import PAGE, ZEROS, Area, Shared, Space
from fuzz.shrink import shrink
from fuzz.world import Finding
from ksm.testing.corrupt import machine_fields

pytestmark = pytest.mark.once

RW = ksm.PROT_READ | ksm.PROT_WRITE
ONE, TWO = bytes(odd.content(1)), bytes(odd.content(2))


def mapped(*areas):
    space = Space()
    for area in areas:
        space.map(area)
    return space


def life_of(*actions, **changes):
    """A life of these actions and nothing else."""
    life = make_life(1, set(), "calls")
    life["start"], life["parts"] = [], [list(actions)]
    life["config"] = {**life["config"], "every": 1, "scarce": False, "processes": 4,
                      "machine": {**life["config"]["machine"], "memory": "4M", "nodes": 1, "swap": None}}  # fmt: skip
    return {**life, **changes}


MMAP = ["mmap", {"who": 0, "place": ["slot", 0], "length": 8 * PAGE, "prot": RW, "flags": FIXED}]
WRITE = ["write", {"who": 0, "place": ["slot", 3], "offset": 0, "length": PAGE, "number": 1, "force": False}]
LOOK = ["look", {"who": 0, "place": ["slot", 0], "length": PAGE}]


# Lives


@pytest.mark.parametrize("seed", range(30))
def test_a_seed_is_a_life(seed):
    life = make_life(seed, set())
    assert repr(make_life(seed, set())) == repr(life)
    assert repr(json.loads(json.dumps(life))) == repr(life)
    assert all(hasattr(Player, f"do_{name}") for part in [life["start"], *life["parts"]] for name, _args in part)


def test_what_is_left_out_changes_nothing_else():
    everything = make_life(4, set())["parts"][0]
    fewer = make_life(4, {"swap", "bytes"})["parts"][0]
    assert 0 < len(fewer) < len(everything)
    told = list(map(repr, fewer))  # because one nan is not another
    assert told == [action for action in map(repr, everything) if action in set(told)]
    assert not {name for name, _args in fewer} & {"swap_out", "swapon", "read"}


def test_each_kind_of_action_and_life_can_be_left_out():
    assert set(ACTIONS) | set(LIVES) - {"calls"} <= set(KINDS)


def test_a_life_is_told_in_the_same_words(tmp_path):
    told = []
    for _ in range(2):
        assert live(make_life(7, set(), "calls"), set(), tmp_path).actions
        told.append((tmp_path / "calls").read_text())
    assert told[0] == told[1]
    assert "m.check()" in told[0]


# The shadow


def test_a_fork_copies_pages_and_shares_objects():
    shared = Shared(2)
    space = mapped(Area(0x10000, 0x14000, RW), Area(0x20000, 0x22000, RW, shared))
    space.write(0x10000, ONE)
    space.write(0x21000, ONE)
    child = space.fork()
    child.write(0x10FFE, b"####")
    child.write(0x21000, TWO)
    assert space.page(0x10000) == ONE
    assert child.page(0x10000)[-2:] + child.page(0x11000)[:3] == b"####\0"
    assert space.page(0x21000) == child.page(0x21000) == TWO


def test_a_fork_leaves_out_and_wipes():
    space = mapped(Area(0x10000, 0x11000, RW, dontfork=True), Area(0x11000, 0x12000, RW, wipe=True))
    space.write(0x10000, ONE + ONE)
    child = space.fork()
    assert child.lines() == [(0x11000, 0x12000, RW, False)]
    assert child.page(0x11000) == ZEROS
    assert space.page(0x11000) == ONE


def test_moved_pages_are_gone_where_they_were():
    space = mapped(Area(0x10000, 0x14000, RW))
    space.write(0x11000, ONE)
    space.move(0x11000, 2 * PAGE, 0x20000, 3 * PAGE)
    assert space.lines() == [(0x10000, 0x11000, RW, False), (0x13000, 0x14000, RW, False), (0x20000, 0x23000, RW, False)]
    assert space.page(0x20000) == ONE
    space.map(Area(0x11000, 0x12000, RW))
    assert space.page(0x11000) == ZEROS


def test_access_ends_where_it_is_not_allowed():
    space = mapped(Area(0x10000, 0x12000, RW), Area(0x12000, 0x13000, 0), Area(0x13000, 0x15000, RW, Shared(1)))
    assert space.reach(0x10800, 0x15000, write=True) == 0x12000
    assert space.reach(0x10800, 0x15000, write=True, force=True) == 0x14000
    assert space.reach(0x10800, 0x10900, write=False) == 0x10900
    assert space.covered(0x10000, 0x20000) == 0x15000


def test_what_nobody_knows_is_known_again_when_it_is_written():
    space = mapped(Area(0x10000, 0x11000, RW))
    space.forget(0x10000, 0x10001)
    space.write(0x10001, b"x")
    assert space.page(0x10000) is None
    space.write(0x10000, ONE)
    assert space.page(0x10000) == ONE


# What goes wrong


@pytest.fixture
def wrong(monkeypatch):
    """Actions that go wrong on purpose."""

    def damage(player):
        """Change a byte behind the machine's back."""
        process = player.subjects[0].process
        word = process.page_table(player.place(player.subjects[0].space, ["slot", 3]), PAGE)[0]
        arena = machine_fields(player.machine)["arena"].address
        ctypes.memset(arena + (word >> ksm.PAGE_FLAGS_SHIFT) * PAGE + 77, 0xEE, 1)

    monkeypatch.setattr(Player, "do_damage", damage, raising=False)
    monkeypatch.setattr(Player, "do_crash", lambda player: os.abort(), raising=False)
    monkeypatch.setattr(Player, "do_hang", lambda player: time.sleep(100), raising=False)
    monkeypatch.setattr(Player, "do_error", lambda player: player.legal("f", player.call("f", [].pop), set()), raising=False)


def test_a_lost_byte_is_found_and_the_rest_is_dropped(wrong, tmp_path):
    life = life_of(MMAP, LOOK, LOOK, WRITE, LOOK, ["damage", {}], LOOK, LOOK)
    result = live(life, set(), tmp_path)
    assert result.kind == "bytes"
    assert "byte 77 differs" in result.text
    small, smaller, note = shrink(life, result, set(), tmp_path, 60)
    assert small["parts"] == [[MMAP, WRITE, ["damage", {}]]]
    assert smaller.kind == "bytes"
    assert note.startswith("3 of 8 actions")


def test_a_crash_is_found(wrong, tmp_path):
    result = live(life_of(MMAP, ["crash", {}]), set(), tmp_path)
    assert result.kind == "crash"
    assert any(word in result.text for word in (str(-signal.SIGABRT), "ABRT", "Aborted"))


def test_what_is_stuck_is_found(wrong, tmp_path):
    result = live(life_of(MMAP, ["hang", {}]), set(), tmp_path, patience=1.5)
    assert result.kind == "stuck"
    assert "do_hang" in result.report or "<lambda>" in result.report


def test_an_error_that_no_docstring_names_is_found(wrong, tmp_path):
    assert live(life_of(["error", {}]), set(), tmp_path).kind == "error"


def test_findings_are_written_down(wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fuzz.hunt.make_life", lambda seed, without, only: life_of(MMAP, WRITE, ["damage", {}], seed=seed))
    assert Hunt(set(), tmp_path / "found", 20).run(5, 2, None) == 1
    (place,) = (tmp_path / "found").iterdir()
    assert place.name == "1-bytes-seed-5"
    assert {path.name for path in place.iterdir()} == {"report", "calls", "life.json"}
    assert "p1.write(" in (place / "calls").read_text()
    assert capsys.readouterr().out.splitlines()[-1].startswith("fuzz: 2 lives from seed 5 on, ")


def test_a_good_life_ends_well(tmp_path):
    result = live(life_of(MMAP, WRITE, LOOK), set(), tmp_path)
    assert (result.kind, result.actions) == ("", 3)


@pytest.mark.parametrize(("era", "answers", "well"), [
    ("6.12", [1, -errno.ENOENT, -errno.EBUSY, 1], True),
    ("6.12", [1, -errno.EAGAIN, 0, 1], True),
    ("6.12", [1, 0, -errno.EAGAIN], False),
    ("6.12", [-errno.EAGAIN, 2], False),
    ("2.6.38", [-errno.EAGAIN, 0], False),
])  # fmt: skip
def test_pages_behind_one_that_stayed_may_be_anywhere(era, answers, well):
    player = SimpleNamespace(config={"machine": {"era": era, "nodes": 2}})
    with contextlib.nullcontext() if well else pytest.raises(Finding):
        Player.look_at_nodes(player, answers, 1)


# The system


@pytest.mark.skipif(not refuse.supported(), reason="the filter is for x86-64 and arm64")
@pytest.mark.parametrize(("call", "does", "refused"), [
    ("dontneed", "import mmap; mmap.mmap(-1, 4096).madvise(mmap.MADV_DONTNEED)", errno.EINVAL),
    ("dontneed", "import mmap; mmap.mmap(-1, 4096).madvise(mmap.MADV_NORMAL)", None),
    ("pidfd_open", "import os; os.pidfd_open(os.getpid())", errno.ENOSYS),
    ("mincore", "import os; os.pidfd_open(os.getpid())", None),
])  # fmt: skip
def test_a_system_that_refuses(call, does, refused):
    program = f"""
import errno
from fuzz.refuse import refuse
refuse([{call!r}])
try:
    {does}
except OSError as error:
    print(error.errno)
"""
    ran = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True,
                         text=True, check=True)  # fmt: skip
    assert ran.stdout.split() == ([] if refused is None else [str(refused)])


REPORT = """
==17==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000011 at pc 0x7f bp 0x7f sp 0x7f
READ of size 1 at 0x602000000011 thread T0
    #0 0x7f in __pyx_f_3ksm_2mm_8swapfile_swapoff build/sanitize/cython/ksm/mm/swapfile.c:1
    #1 0x7f in __pyx_pw_3ksm_7machine_7Machine_1swapoff build/sanitize/cython/ksm/machine.c:1
    #2 0x7f in _PyEval_EvalFrameDefault Python/ceval.c:1

Direct leak of 24 byte(s) in 1 object(s) allocated from:
    #0 0x7f in __interceptor_malloc asan_malloc_linux.cpp:69
    #1 0x7f in __pyx_f_3ksm_2mm_4slub_grow build/sanitize/cython/ksm/mm/slub.c:1

Direct leak of 48 byte(s) in 1 object(s) allocated from:
    #0 0x7f in __interceptor_malloc asan_malloc_linux.cpp:69
    #1 0x7f in PyThread_allocate_lock Python/thread_pthread.h:385
"""


def test_a_report_is_told_in_a_line():
    crash = sanitizers.crash(REPORT)
    assert crash is not None
    assert crash.startswith("ERROR: AddressSanitizer: heap-buffer-overflow")
    assert "swapfile_swapoff" in crash
    assert "_PyEval" not in crash
    (leak,) = sanitizers.leaks(REPORT)
    assert "24 byte(s)" in leak
    assert sanitizers.crash("all is well") is None


# Odd arguments


@pytest.mark.parametrize("seed", range(40))
def test_what_an_odd_argument_stands_for(seed):
    rng = random.Random(seed)
    spec = odd.stranger(rng)
    made, value = odd.make(spec, 5, lambda within: None)
    assert value is None
    with pytest.raises((TypeError, odd.OddError)):
        operator.index(made)
    done = []
    made, value = odd.make(["calls", ["look"]], 5, done.append)
    assert operator.index(made) == value == 5
    assert done == [["look"]]


def test_the_command_line(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "fuzz", "--findings", str(tmp_path)]
    ran = subprocess.run([*command, "--without", "nothing"], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "swap_out, swapon, swapoff" in ran.stdout
    # One thread alone, whose answers are the same each time
    kinds = [f"--without={kind}" for kind in LIVES if kind != "calls"]
    ran = subprocess.run([*command, *kinds, "--seed", "70", "--lives", "12"], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("fuzz: 12 lives from seed 70 on, ")
