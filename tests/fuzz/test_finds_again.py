# SPDX-License-Identifier: GPL-2.0-only
"""Two faults that were there once, and that random lives have to come to again: what the first did is done to the machine by hand; the
second one's place is where a call is refused since."""

import ctypes
import itertools

import pytest

import ksm
from fuzz.hunt import Hunt, live
from fuzz.life import make_life
from fuzz.player import Player
from fuzz.shadow import PAGE
from ksm.testing.corrupt import machine_fields

pytestmark = pytest.mark.once

PG_DIRTY, PG_SWAPCACHE = 0x8, 0x20


@pytest.fixture
def undirtied(monkeypatch):
    """A forced write does not say that the page is dirty: it keeps the flag that it had."""
    store = Player.store

    def flags_of(player, subject, addr):
        word = subject.process.page_table(addr & -PAGE, PAGE)[0] if not player.closed else 0
        if not word & ksm.PAGE_PRESENT or word & ksm.PAGE_ZERO:
            return None
        base, size = machine_fields(player.machine)["mem_map"]
        return ctypes.c_uint.from_address(base + (word >> ksm.PAGE_FLAGS_SHIFT) * size)

    def forgets(player, subject, addr, data, plain=None, force=False, odd=None):
        pages = range(addr & -PAGE, addr + len(data), PAGE) if force and subject.space is not None and addr < 1 << 47 else ()
        flags = {page: flags_of(player, subject, page) for page in pages}
        clean = {page for page in pages if flags[page] is None or not flags[page].value & PG_DIRTY}
        store(player, subject, addr, data, plain, force, odd)
        for page in clean:
            now = flags_of(player, subject, page)
            if now is not None and now.value & PG_SWAPCACHE:
                now.value &= ~PG_DIRTY

    monkeypatch.setattr(Player, "store", forgets)


def test_the_lost_byte(undirtied, tmp_path, capsys):
    """A page comes back from swap, is written by force, and goes there again."""
    hunt = Hunt(set(), tmp_path / "found", 0, "calls")
    for seed in range(1000, 1100):
        hunt.life(seed, tmp_path)
        if hunt.found:
            break
    (found,) = hunt.found
    assert found == "bytes" or "which is clean" in found
    assert hunt.lives < 60


def test_the_mapping_at_0(tmp_path):
    """mremap() to a place below all that processes may have, of memory that could be moved there."""
    for seed in range(2000, 2060):
        life = make_life(seed, set(), "calls")
        if "mremap" not in life["kinds"]:
            continue
        assert live(life, set(), tmp_path).text == ""
        lines = (tmp_path / "calls").read_text().splitlines()
        if any(".mremap(" in call and answer.split()[-1] == "EPERM" for call, answer in itertools.pairwise(lines)):
            return
    pytest.fail("no life came there")
