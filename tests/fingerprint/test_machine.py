# SPDX-License-Identifier: GPL-2.0-only
"""What a machine of fingerprints does, what it refuses and in which words, and what check() finds in its frames."""

import ctypes
import errno
import re

import pytest

import ksm
from ksm.fingerprint import frames_of

PAGE, FRAME = ksm.PAGE_SIZE, 32
KEPT = 20       # bytes of a frame that a machine keeps: the others are zeros
A, B, ZEROS = b"A" * PAGE, b"B" * PAGE, bytes(PAGE)


@pytest.fixture
def machine():
    with ksm.Machine("16M", max_memory="32M", nodes=2, swap="4M", clock="manual", pages="fingerprints") as machine:
        yield machine
        assert machine.check() == []


@pytest.fixture
def process(machine):
    return machine.spawn()


def mergeable(process, contents):
    addr = process.mmap(len(contents) * PAGE)
    process.madvise(addr, len(contents) * PAGE, ksm.MADV_MERGEABLE)
    process.update(addr, b"".join(contents))
    return addr


def frame(process, addr):
    return process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT


def held(process, addr):
    """What the frame of a page holds."""
    view = process.machine.frame(frame(process, addr))
    assert view.nbytes == KEPT
    return bytes(view) + bytes(FRAME - KEPT)


def refused(words, call, *args, **kwargs):
    with pytest.raises(OSError, match=words) as caught:
        call(*args, **kwargs)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_machine_says_what_its_frames_hold(machine):
    assert machine.pages == "fingerprints"
    with ksm.Machine("4M") as other:
        assert other.pages == "bytes"
    with pytest.raises(ValueError, match='pages are "bytes" or "fingerprints", not \'words\''):
        ksm.Machine("4M", pages="words")


def test_bytes_are_refused(machine, process, tmp_path):
    addr = mergeable(process, [A])
    words = re.escape("the machine's frames hold fingerprints, not bytes")
    for force in (False, True):
        refused(f"read of 8 bytes at {addr:#x}, 0 done: {words}", process.read, addr, 8, force=force)
        refused(f"write of 1 bytes at {addr:#x}, 0 done: {words}", process.write, addr, b"!", force=force)
    image = tmp_path / "image"
    image.write_bytes(A)
    with image.open("rb") as file:
        for still in (False, True):
            refused(f"mmap_image of 4096 bytes: {words}", process.mmap_image, file, still=still)
    assert (process.read(addr, 0), process.write(addr, b"")) == (b"", None)
    assert held(process, addr) == frames_of(A)
    with ksm.Machine("4M") as other:
        refused("load of 1 pages at 0x0: the machine's frames hold bytes", other.spawn().load, 0, bytes(FRAME))


@pytest.mark.parametrize("pages", ["bytes", "fingerprints"])
@pytest.mark.parametrize("merged", [False, True])
def test_update_of_every_page_breaks_what_is_shared(pages, merged):
    """A write of the same bytes is a write: the page gets a frame of its own, where update() else writes nothing."""
    with ksm.Machine("16M", pages=pages) as machine:
        parent = machine.spawn()
        addr = mergeable(parent, [A, A if merged else B, ZEROS])
        child = parent.fork()
        if merged:
            machine.ksm.scan(passes=3)
            assert frame(parent, addr) == frame(child, addr) == frame(parent, addr + PAGE)
        before = [frame(parent, addr + i * PAGE) for i in range(3)]
        assert child.update(addr, A) == 0
        assert [frame(child, addr + i * PAGE) for i in range(3)] == before
        assert child.update(addr, A, always=True) == 1
        assert frame(child, addr) not in before
        assert [frame(parent, addr + i * PAGE) for i in range(3)] == before
        assert [frame(child, addr + i * PAGE) for i in (1, 2)] == before[1:]
        assert child.update(addr, A) == 0
        if pages == "fingerprints":
            assert child.load(addr + 2 * PAGE, frames_of(ZEROS)) == 0
            assert child.load(addr + 2 * PAGE, frames_of(ZEROS), always=True) == 1
            assert frame(child, addr + 2 * PAGE) != before[2]
        assert machine.check() == []


def test_update_and_load_store_the_same(machine, process):
    contents = [A, ZEROS, B, bytes(range(256)) * 16]
    one, other = mergeable(process, contents), process.mmap(4 * PAGE)
    assert process.load(other, frames_of(b"".join(contents))) == 4
    assert [held(process, one + i * PAGE) for i in range(4)] == [held(process, other + i * PAGE) for i in range(4)]
    assert process.load(other, frames_of(b"".join(contents))) == process.update(other, b"".join(contents)) == 0
    assert process.load(other + PAGE, frames_of(A + B)) == 1
    assert process.update(other, A + B) == 1
    assert process.load(other, b"") == 0


def test_frames_are_numbers_that_have_nothing_of_the_page():
    assert len({frames_of(content) for content in (A, B, ZEROS)}) == 3
    assert frames_of(ZEROS) == frames_of(ZEROS, jhash=True) == bytes(FRAME)
    assert frames_of(A)[:16] == frames_of(A, jhash=True)[:16]
    assert frames_of(A)[16:20] != frames_of(A, jhash=True)[16:20]
    assert frames_of(A)[20:] == bytes(12)
    assert frames_of(A + B + A) == frames_of(A) + frames_of(B) + frames_of(A)
    assert frames_of(b"") == b""
    with pytest.raises(ValueError, match="whole pages have frames"):
        frames_of(A[1:])


def test_fingerprint_and_checksum_are_those_of_the_library():
    """XXH3 and XXH64 as the xxhash package has them, each field without that of a page of zeros."""
    xxhash = pytest.importorskip("xxhash")
    for content in (A, B, bytes(range(256)) * 16):
        wanted = int.from_bytes(xxhash.xxh3_128_digest(content), "big") ^ int.from_bytes(xxhash.xxh3_128_digest(ZEROS), "big")
        checksum = xxhash.xxh64_intdigest(content) ^ xxhash.xxh64_intdigest(ZEROS)
        assert frames_of(content) == wanted.to_bytes(16, "big") + (checksum & 0xFFFFFFFF).to_bytes(4, "little") + bytes(12)


@pytest.mark.parametrize("frames, words", [
    (bytes(31) + b"\1", "frame 0 of those to load stands for no page"),
    (bytes(16) + b"\1" + bytes(15), "frame 0 of those to load stands for no page"),
    (frames_of(A) + frames_of(B)[:20] + b"\1" + bytes(11), "frame 1 of those to load stands for no page"),
    (bytes(31), "whole pages, 32 bytes each"),
    (bytes(33), "whole pages, 32 bytes each"),
])
def test_load_takes_nothing_else(process, frames, words):
    addr = mergeable(process, [B, B])
    with pytest.raises(ValueError, match=words):
        process.load(addr, frames)
    assert held(process, addr) == held(process, addr + PAGE) == frames_of(B)


def test_load_needs_memory_that_is_there(process):
    addr = process.mmap(PAGE)
    with pytest.raises(OSError) as caught:
        process.load(addr, frames_of(A + B))
    assert caught.value.errno == errno.EFAULT
    assert held(process, addr) == frames_of(A)
    with pytest.raises(ValueError, match="whole pages"):
        process.load(addr + 1, frames_of(A))


def test_frames_can_be_looked_at(machine, process):
    addr = mergeable(process, [A])
    with machine.frame(frame(process, addr)) as view:
        assert (view.nbytes, view.readonly, bytes(view)) == (KEPT, True, frames_of(A)[:KEPT])
    with memoryview(machine) as view:
        assert view.nbytes == machine.memory // PAGE * KEPT
        start = frame(process, addr) * KEPT
        assert view[start:start + KEPT] == frames_of(A)[:KEPT]
        with pytest.raises(BufferError):
            machine.close()


def test_what_a_frame_of_the_machine_shows_is_copied_before_it_is_loaded(machine, process):
    addr = mergeable(process, [A, B, b"C" * PAGE, b"D" * PAGE])
    frames = {number: word >> ksm.PAGE_FLAGS_SHIFT for number, word in enumerate(process.page_table(addr, 4 * PAGE))}
    with memoryview(machine) as view, pytest.raises(ValueError, match="stands for no page"):
        process.load(addr, view[frames[0] * KEPT:frames[0] * KEPT + FRAME])     # of the next frame, too
    assert held(process, addr) == frames_of(A)


def test_memory_that_was_never_stored_is_zeros(machine, process):
    addr = process.mmap(4 * PAGE)
    process.touch(addr, 2 * PAGE)
    assert held(process, addr) == bytes(FRAME)
    assert process.update(addr, ZEROS) == 0
    assert process.update(addr + 2 * PAGE, ZEROS) == 1      # it was not there


def test_copy_on_write(machine, process):
    addr = mergeable(process, [A, A, B, ZEROS, ZEROS])
    machine.ksm.use_zero_pages = 1
    machine.ksm.scan(3)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.ksm_zero_pages) == (1, 1, 2)
    process.touch(addr, 1)
    process.touch(addr + 3 * PAGE, 1)
    assert machine.vmstat()["cow_ksm"] == 1
    child = process.fork()
    child.update(addr + 2 * PAGE, A)
    assert [held(process, addr + i * PAGE) for i in range(4)] == [frames_of(page) for page in (A, A, B, ZEROS)]
    assert [held(child, addr + i * PAGE) for i in range(3)] == [frames_of(A)] * 3
    assert machine.check() == []
    machine.ksm.scan(3)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 4)


def test_swap(machine, process):
    contents = [A, A, B, ZEROS]
    addr = mergeable(process, contents)
    machine.ksm.scan(3)
    assert process.swap_out(addr, 4 * PAGE) == 3
    assert machine.vmstat()["pswpout"] == 2     # the page of zeros is not written
    assert process.swap_entries() == 4
    assert process.load(addr, frames_of(b"".join(contents))) == 0
    assert [held(process, addr + i * PAGE) for i in range(4)] == [frames_of(page) for page in contents]
    process.swap_out(addr, 4 * PAGE)
    machine.swapoff()
    assert [held(process, addr + i * PAGE) for i in range(4)] == [frames_of(page) for page in contents]


def test_pages_move(machine, process):
    addr = mergeable(process, [A, A, B])
    machine.ksm.scan(3)
    assert process.move_pages(addr, 3 * PAGE, 1) == [1, -errno.EBUSY, 1]  # the second has the frame of the first
    assert machine.migrate(frame(process, addr), node=0)
    assert machine.check() == []
    block = frame(process, addr + 2 * PAGE) & ~511
    machine.offline(block, 512)
    assert machine.check() == []
    assert frame(process, addr + 2 * PAGE) & ~511 != block
    machine.online(block, 512)
    assert [held(process, addr + i * PAGE) for i in range(3)] == [frames_of(page) for page in (A, A, B)]


def test_memory_fails(machine, process):
    addr = mergeable(process, [A, A])
    machine.ksm.scan(3)
    [(killed, where)] = machine.memory_failure(frame(process, addr))
    assert killed is process
    assert where in (addr, addr + PAGE)
    assert machine.check() == []


def test_huge_pages(machine, process):
    length = 512 * PAGE
    addr = process.mmap(2 * length)
    addr += -addr % length
    process.madvise(addr, length, ksm.MADV_HUGEPAGE)
    process.madvise(addr, length, ksm.MADV_MERGEABLE)
    process.update(addr, A + B)
    process.update(addr + 300 * PAGE, A + B)
    assert process.page_table(addr + 400 * PAGE, PAGE)[0] & ksm.PAGE_THP
    assert (held(process, addr), held(process, addr + 301 * PAGE), held(process, addr + PAGE * 511)) == (
        frames_of(A), frames_of(B), bytes(FRAME))
    machine.ksm.scan(3)
    assert machine.vmstat()["thp_split_page"] == 1
    # The split maps parts of zeros to the zero page.
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing, process.rss()) == (2, 2, 4)
    assert held(process, addr + 301 * PAGE) == frames_of(B)


def test_exec_and_exit_leave_nothing(machine, process):
    mergeable(process, [A, A, B])
    process.fork().exec()
    machine.ksm.scan(3)
    process.exit()
    for other in list(machine.processes.values()):
        other.exit()
    machine.ksm.scan(2)
    assert machine.free_pages() == machine.total_pages() - 1
    assert machine.ksm.pages_shared == 0


def test_freed_frames_give_their_memory_back(machine, process):
    """Two hundred frames share a page of the system, which goes back when none of them is used."""
    with memoryview(machine) as view:
        start = address_of(view)
    addr = process.mmap(2000 * PAGE)
    process.load(addr, frames_of(A) * 2000)
    full = resident(start, machine.memory // PAGE * KEPT // PAGE)
    assert full >= 2000 * KEPT // PAGE
    process.munmap(addr, 2000 * PAGE)
    machine.drain_all_pages()
    assert resident(start, machine.memory // PAGE * KEPT // PAGE) <= full - 8


def address_of(view):
    """Where a read-only view begins."""
    class Buffer(ctypes.Structure):
        _fields_ = [("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("rest", ctypes.c_char * 64)]

    buffer = Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    address = buffer.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address


def resident(start, pages):
    there = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(pages * PAGE), there) == 0
    return sum(each & 1 for each in there)


@pytest.mark.parametrize("page, place, value, words", [
    (4, 16, b"\1", r"frame \d+: it holds what stands for no page"),         # the checksum of a page of zeros
    (0, 0, frames_of(B)[:KEPT], r"stable tree 0: pages \d+ and \d+ are equal"),   # another page
])
def test_check_finds_damage(machine, process, page, place, value, words):
    addr = mergeable(process, [A, A, B, B, ZEROS])
    machine.ksm.scan(3)
    with machine.frame(frame(process, addr + page * PAGE)) as view:
        start = address_of(view) + place
    old = ctypes.string_at(start, len(value))
    ctypes.memmove(start, value, len(value))
    found = machine.check()
    ctypes.memmove(start, old, len(value))
    assert any(re.search(words, line) for line in found), found


def test_a_free_frame_that_is_not_zeros_is_found(machine, process):
    addr = process.mmap(8 * PAGE)
    process.load(addr, frames_of(A) * 8)
    with machine.frame(frame(process, addr)) as view:
        start = address_of(view)
    process.munmap(addr, 8 * PAGE)
    machine.drain_all_pages()
    ctypes.memmove(start, b"\1", 1)
    found = machine.check()
    ctypes.memmove(start, b"\0", 1)
    assert any(re.search(r"frame \d+: free, and not all zeros", line) for line in found), found


def test_a_recording_has_the_same_steps():
    """A plain machine can be recorded. What the recording shows of a page is its frame."""
    names = []
    for pages in ("bytes", "fingerprints"):
        with ksm.Machine("4M", plain=True, clock="manual", pages=pages) as machine:
            process = machine.spawn()
            addr = mergeable(process, [A, A, B, ZEROS, A])
            with machine.record() as recording:
                machine.ksm.scan(3)
                process.touch(addr)
                machine.ksm.scan(1)
            names.append(sorted(step[0] for step in recording.data()["steps"]))
            assert machine.check() == []
    # A search may take another way to the same end.
    assert set(names[0]) == set(names[1])


def test_what_does_not_ask_for_bytes(machine, process):
    addr = mergeable(process, [A, A, B])
    machine.ksm.scan(3)
    machine.fail("page", 0)
    machine.lru_add_drain_all()
    assert process.rss() == 3
    assert process.ksm_stat()["ksm_merging_pages"] == 2
    assert [vma.start for vma in process.maps()] == [addr]
    assert process.smaps()[0].ksm == 2 * PAGE
    assert process.present(addr, 3 * PAGE) == b"\1\1\1"
    assert process.mremap(addr, 3 * PAGE, 6 * PAGE)
    assert process.brk()
    assert process.prctl(ksm.PR_SET_MEMORY_MERGE, 1) == 0
    machine.ksm.run = 2
    assert machine.ksm.pages_shared == 0
