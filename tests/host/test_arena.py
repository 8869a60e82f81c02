# SPDX-License-Identifier: GPL-2.0-only
"""The memory behind the frames, on a system that refuses some calls."""

import ctypes
import errno
import os

import pytest

import ksm
import ksm.host.memory
from ksm.estimate.scan import make_machine
from ksm.testing.corrupt import frame_fields

PAGE = ksm.PAGE_SIZE
MIB = 1 << 20

# One process fills the memory, and exits. The next one must find nothing of its bytes.
NOTHING_IS_LEFT = """
import ksm, refuse, sys
from ksm.testing.corrupt import machine_fields

PAGE = ksm.PAGE_SIZE
{before}
with ksm.Machine("16M", max_memory="16M", clock="manual") as machine:
    {after}
    for _ in range(3):
        a = machine.spawn()
        addr = a.mmap(15 << 20)
        a.write(addr, b"secret! " * (15 << 17))
        {meanwhile}
        a.exit()
        machine.lru_add_drain_all()
        machine.drain_all_pages()
        assert machine.check() == [], machine.check()
        b = machine.spawn()
        addr = b.mmap(15 << 20)
        for page in range(15 << 8):
            b.write(addr + page * PAGE + page % PAGE, b"x")
        for page in range(15 << 8):
            found = b.read(addr + page * PAGE, PAGE)
            assert found == bytes(page % PAGE) + b"x" + bytes(PAGE - 1 - page % PAGE), (page, found[:64])
        b.exit()
    machine.lru_add_drain_all()
    assert machine.free_pages() == machine.total_pages() - 1
    assert machine.check() == []
"""


@pytest.fixture
def fresh_memory_is_zeros(in_a_process):
    def check(before="", after="", meanwhile=""):
        in_a_process(NOTHING_IS_LEFT.format(before=before, after=after or "pass", meanwhile=meanwhile or "pass"))

    return check


def test_fresh_memory_is_zeros(fresh_memory_is_zeros):
    fresh_memory_is_zeros()


def test_fresh_memory_is_zeros_where_all_is_locked(fresh_memory_is_zeros):
    fresh_memory_is_zeros(before="refuse.lock_all()")


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EAGAIN, errno.ENOMEM], ids=errno.errorcode.get)
def test_fresh_memory_is_zeros_where_giving_back_is_denied(fresh_memory_is_zeros, error):
    fresh_memory_is_zeros(after=f"refuse.deny('madvise', {error}); refuse.deny('process_madvise', {error})")


@pytest.mark.parametrize("denied", ["deny('madvise')", "deny('process_madvise')", "deny('pidfd_open')", "deny('madvise', advice=4)",
                                    "deny('madvise', advice=23)", "deny('mincore')"])
def test_fresh_memory_is_zeros_where_one_call_is_denied(fresh_memory_is_zeros, denied):
    fresh_memory_is_zeros(after=f"refuse.{denied}")


def test_fresh_memory_is_zeros_where_nothing_is_allowed(fresh_memory_is_zeros):
    fresh_memory_is_zeros(before="for name in refuse.SYSCALLS: refuse.deny(name)")


def test_fresh_memory_is_zeros_where_some_is_locked(fresh_memory_is_zeros):
    """Giving back many ranges at once stops at the first one that cannot be given back."""
    fresh_memory_is_zeros(after="refuse.lock(machine_fields(machine)['arena'].address + (5 << 20), 4 << 20)")


def test_fresh_memory_is_zeros_where_it_was_locked_for_a_while(fresh_memory_is_zeros):
    fresh_memory_is_zeros(meanwhile="refuse.lock(machine_fields(machine)['arena'].address + (_ << 20), 1 << 20)")


def test_what_merging_frees_is_zeros_where_all_is_locked(in_a_process):
    """Merging gives frames back here and there, in many short ranges."""
    in_a_process("""if True:
        import ksm, refuse
        refuse.lock_all()
        PAGE = ksm.PAGE_SIZE
        with ksm.Machine("32M", max_memory="32M") as machine:
            machine.ksm.smart_scan = 0
            a = machine.spawn()
            addr = a.mmap(16 << 20)
            a.write(addr, b"".join((b"alike..." if i % 3 else b"%07d " % i) * 512 for i in range(4096)))
            a.madvise(addr, 16 << 20, ksm.MADV_MERGEABLE)
            machine.ksm.scan(3)
            assert machine.ksm.pages_sharing > 2600
            assert machine.check() == []
            b = machine.spawn()
            addr = b.mmap(24 << 20)
            b.touch(addr, 18 << 20)
            assert b.read(addr, 24 << 20) == bytes(24 << 20)
            assert machine.check() == []
    """)


def test_a_scan_where_nothing_is_allowed(in_a_process, tmp_path):
    """If the system does not tell of an image's pages, or does not take memory back, only time and memory change."""
    script = """if True:
        import ksm, refuse, sys
        if sys.argv[2] == "denied":
            for name in refuse.SYSCALLS:
                refuse.deny(name)
        PAGE = ksm.PAGE_SIZE
        with open(sys.argv[1], "wb") as file:
            for i in range(4096):
                file.write((b"alike..." if i % 3 else b"%07d " % i) * 512)
        with ksm.Machine("32M") as machine, open(sys.argv[1], "rb") as image:
            machine.ksm.smart_scan = 0
            for still in (True, False):
                process = machine.spawn()
                addr = process.mmap_image(image, still=still)
                process.madvise(addr, 16 << 20, ksm.MADV_MERGEABLE)
                machine.ksm.scan(3)
                image.seek(0)
                assert process.read(addr, 16 << 20) == image.read()
                assert machine.check() == []
            print(machine.ksm.attributes(), machine.vmstat())
    """
    assert in_a_process(script, tmp_path / "image", "denied") == in_a_process(script, tmp_path / "image", "allowed")


def test_memory_is_given_back_again_when_that_is_possible(in_a_process):
    in_a_process("""if True:
        import ksm, refuse, os
        from ksm.testing.corrupt import machine_fields

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        with ksm.Machine("64M", max_memory="64M") as machine:
            arena = machine_fields(machine)["arena"].address
            before = resident()
            a = machine.spawn()
            a.touch(a.mmap(48 << 20), 48 << 20)
            refuse.lock(arena, 64 << 20)
            a.exit()
            machine.lru_add_drain_all()
            machine.drain_all_pages()
            refuse.must(refuse.libc.munlock(refuse.ctypes.c_void_p(arena), refuse.ctypes.c_size_t(64 << 20)))
            b = machine.spawn()
            b.touch(b.mmap(48 << 20), 48 << 20)
            b.exit()
            machine.lru_add_drain_all()
            machine.drain_all_pages()
            assert resident() - before < 20 << 20
            assert machine.check() == []
    """)


# machine.check()

@pytest.fixture
def scene():
    """A machine that has used its memory, most of which is free again."""
    with ksm.Machine("16M", max_memory="16M") as machine:
        process = machine.spawn()
        addr = process.mmap(8 * MIB)
        process.touch(addr, 8 * MIB)
        frames = [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, 8 * MIB)]
        process.munmap(addr, 8 * MIB)
        machine.lru_add_drain_all()
        machine.drain_all_pages()
        assert machine.check() == []
        yield machine, frames


def poke(machine, pfn, offset, value):
    ctypes.c_ubyte.from_address(frame_fields(machine, pfn)["page.bytes"].address + offset).value = value


@pytest.mark.parametrize("place", [0, 1, 1000, -1])
@pytest.mark.parametrize("offset", [0, 1, PAGE - 1])
def test_a_free_frame_that_is_not_zeros_is_found(scene, place, offset):
    machine, frames = scene
    poke(machine, frames[place], offset, 7)
    assert [line for line in machine.check() if f"frame {frames[place]}" in line and "zeros" in line]
    poke(machine, frames[place], offset, 0)
    assert machine.check() == []


def test_a_frame_that_was_never_used_and_is_not_zeros_is_found(scene):
    machine, _ = scene
    last = machine.total_pages() - 1
    poke(machine, last, 5, 1)
    assert [line for line in machine.check() if f"frame {last}" in line and "zeros" in line]
    poke(machine, last, 5, 0)


def test_a_frame_that_is_offline_and_is_not_zeros_is_found(scene):
    machine, _ = scene
    machine.offline(512, 512)
    assert machine.check() == []
    poke(machine, 700, 5, 1)
    assert [line for line in machine.check() if "frame 700" in line and "zeros" in line]
    poke(machine, 700, 5, 0)
    machine.online(512, 512)
    assert machine.check() == []


def test_frames_freed_a_moment_ago_need_not_be_zeros():
    with ksm.Machine("16M", max_memory="16M") as machine:
        process = machine.spawn()
        addr = process.mmap(64 * PAGE)
        process.write(addr, b"x" * 64 * PAGE)
        process.munmap(addr, 64 * PAGE)
        assert machine.check() == []


def test_checking_takes_no_memory(in_a_process):
    """Frames without memory stay without it."""
    in_a_process("""if True:
        import ksm, os, re

        def kib(name):
            with open("/proc/self/status") as file:
                return int(re.search(rf"{name}:\\s+(\\d+) kB", file.read())[1])

        with ksm.Machine("4G", max_memory="4G") as machine:
            before = kib("VmPTE")       # one for all of the memory would be 8 MiB
            for _ in range(3):
                assert machine.check() == []
            assert kib("VmPTE") - before < 512
            before = kib("RssAnon")
            assert machine.check() == []
            assert kib("RssAnon") - before < 1024
    """)


# The size of the system's pages

@pytest.mark.parametrize("size", [16384, 65536])
def test_a_system_with_other_pages_is_refused(monkeypatch, size):
    monkeypatch.setattr(ksm.host.memory, "page_size", lambda: size)
    with pytest.raises(OSError, match=f"pages of 4096 bytes, and this system's have {size}") as info:
        ksm.Machine("16M")
    assert info.value.errno == errno.EOPNOTSUPP


def test_a_scan_says_why_there_is_no_machine(monkeypatch):
    monkeypatch.setattr(ksm.host.memory, "page_size", lambda: 16384)
    with pytest.raises(OSError, match="this system's have 16384"):
        make_machine([])


def test_this_system_has_the_right_pages():
    assert ksm.host.memory.page_size() == os.sysconf("SC_PAGE_SIZE") == PAGE
