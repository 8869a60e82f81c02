# SPDX-License-Identifier: GPL-2.0-only
"""How a scan takes and leaves the locks of the processes that it looks at."""

import time

import pytest

import ksm
from ksm.sources import Host, open_source
from ksm.sources.gentle import SHARE, gently
from ksm.sources.pace import pause, set_share
from ksm.sources.pagemap import anonymous_runs, read_runs
from ksm.sources.pieces import BUFFER

PAGE = 4096


def shares():
    """The share that is set now."""
    now = set_share(0)
    set_share(now)
    return now


def test_rests_are_as_long_as_the_share_asks():
    """A quarter: three times the work. A rest may be longer on a busy machine, never shorter."""
    with gently():
        pause()
        begun = time.monotonic()
        while (worked := time.monotonic() - begun) < 0.002:
            pass
        pause()
        assert time.monotonic() - begun >= worked / SHARE * 0.9


def test_long_work_of_another_kind_asks_for_a_short_rest():
    with gently():
        pause()
        time.sleep(0.3)
        begun = time.monotonic()
        pause()
        assert 0.025 < time.monotonic() - begun < 0.8  # three times 10 ms; 0.9 s if all of the work counted


def test_it_ends():
    with pytest.raises(KeyError), gently():
        assert shares() == SHARE
        raise KeyError
    assert shares() == 0
    with gently(False):
        assert shares() == 0


@pytest.mark.parametrize("share", [-1, 0.05, 1.5, float("nan")])
def test_what_is_no_share(share):
    with pytest.raises(ValueError, match="it is 0, or from"):
        set_share(share)
    assert shares() == 0


def test_less_is_read_at_once(target):
    """The mmap_lock is taken for each part that is read."""
    target.do("a = area(300); fill(a, 0, [1001] * 300)")
    start = target.ask("[address(a)]")[0]
    sizes = {}
    for gentle in (False, True):
        with open(f"/proc/{target.pid}/mem", "rb") as mem, gently(gentle):
            parts = []
            read_runs(
                target.pid, mem.fileno(), [(start, start + 300 * PAGE)], lambda runs, view, parts=parts: parts.append(bytes(view)),
                bytearray(BUFFER), by_file=False,
            )  # fmt: skip
        sizes[gentle] = max(map(len, parts))
        assert b"".join(parts) == (1001).to_bytes(8, "little") * (300 * PAGE // 8)
    assert sizes == {False: BUFFER, True: 64 << 10}


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_pages_are_there(target, threads):
    target.do("a = area(3000); fill(a, 0, list(range(1000, 2500)))")
    host = Host(gentle=True)
    counts = []
    for gentle in (False, True):
        with ksm.Machine("256M") as machine, gently(gentle):
            source = open_source(f"pid:{target.pid}", host)
            source.threads = threads
            source.attach(machine)
            counts.append(source.process.rss())
            source.close()
    host.close()
    assert counts[0] == counts[1] > 1500


def test_what_is_there_is_found_in_steps(target):
    """PAGEMAP_SCAN is asked for 1,024 pages and 64 MiB at once."""
    target.do("a = area(40000); fill(a, 0, [1] * 1500); fill(a, 3000, [2] * 1100); fill(a, 39000, [3])")
    start = target.ask("[address(a)]")[0]
    area = [(start, start + 40000 * PAGE)]
    runs = [(start + first * PAGE, start + last * PAGE) for first, last in ((0, 1500), (3000, 4100), (39000, 39001))]
    with open(f"/proc/{target.pid}/pagemap", "rb") as pagemap:
        for gentle in (False, True):
            with gently(gentle):
                assert anonymous_runs(pagemap.fileno(), -1, area) == runs
        assert anonymous_runs(pagemap.fileno(), -1, area, ask_ioctl=False) == runs
