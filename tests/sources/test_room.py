# SPDX-License-Identifier: GPL-2.0-only
"""Processes that grow while they are scanned: there is memory for them, or one line says that there is not."""

import pytest

import ksm
from ksm.sources import Host, SourceError, open_source, room

MIB = 1 << 20
PAGE = 4096


@pytest.fixture
def left(monkeypatch):
    """A function that says how much memory this computer has left."""
    def left(size):
        monkeypatch.setattr(room, "available_memory", lambda: size)

    return left


def test_what_is_needed(left):
    """160 bytes for a page: 64 now, 96 when KSM sees it. Pages that KSM has yet to see need these, too."""
    have = room.Room()
    left(room.SLACK + 256 * 160)
    have.take("a", MIB, exact=False)
    with pytest.raises(SourceError, match=r"^a: its memory has grown too large for this scan: 1\.0 MiB more need "):
        have.take("a", MIB + PAGE, exact=False)
    with pytest.raises(SourceError, match=r"^a: "):
        have.take("a", MIB, exact=True)
    have.new += PAGE
    with pytest.raises(SourceError, match=r"^b: "):
        have.take("b", MIB, exact=False)
    have.begin()
    have.take("b", MIB, exact=False)


@pytest.mark.parametrize("pages", ["bytes", "fingerprints"])
def test_a_process_that_grows(target, left, pages):
    host = Host()
    target.do("a = area(100); fill(a, 0, [1001] * 100)")
    with ksm.Machine("256M", pages=pages) as machine:
        source = open_source(f"pid:{target.pid}", host)
        left(0)
        source.attach(machine)  # it has not grown: what it needs was looked for before
        source.refresh(1)
        target.do("b = area(2000); fill(b, 0, [1002] * 2000)")
        with pytest.raises(SourceError, match=r"its memory has grown too large for this scan: .* are available$"):
            source.refresh(2)
        left(room.SLACK + (20 * MIB if pages == "bytes" else MIB))
        source.refresh(3)
        left(0)
        source.refresh(4)
        source.close()
    host.close()


def test_a_process_that_grows_before_it_is_read(target, left):
    host = Host()
    with ksm.Machine("256M") as machine:
        source = open_source(f"pid:{target.pid}", host)
        target.do("b = area(2000); fill(b, 0, [1002] * 2000)")
        left(0)
        with pytest.raises(SourceError, match="has grown too large"):
            source.attach(machine)
        source.close()
    host.close()
