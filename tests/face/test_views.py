# SPDX-License-Identifier: GPL-2.0-only
"""What a machine shows: what it was made with, its frames, its processes."""

import collections.abc
import contextlib
import errno
import os
import tempfile
import threading
import time

import pytest

import ksm

PAGE = ksm.PAGE_SIZE


@pytest.fixture
def machine():
    with ksm.Machine("4M", max_memory="16M", swap="1M", plain=True) as machine:
        yield machine
        assert machine.closed or machine.check() == []


@pytest.fixture
def process(machine):
    return machine.spawn()


def frames(process, addr, count):
    return [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, count * PAGE)]


def filled(process, count, text=b"page"):
    addr = process.mmap(count * PAGE)
    process.write(addr, (text * PAGE)[:PAGE] * count)
    process.machine.lru_add_drain_all()
    return addr, frames(process, addr, count)


def image_of(process, content, **how):
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        addr = process.mmap_image(file, **how)
    return addr, frames(process, addr, len(content) // PAGE)


# What it was made with

def test_what_a_machine_was_made_with():
    with ksm.Machine("8M", nodes=2, clock="manual", era="2.6.38") as machine:
        assert (machine.memory, machine.nodes, machine.clock, machine.era) == (8 << 20, 2, "manual", "2.6.38")
        machine.offline(512, 512)
        assert machine.memory == 8 << 20
    with ksm.Machine(1 << 20) as machine:
        assert (machine.memory, machine.nodes, machine.clock, machine.era) == (1 << 20, 1, "real", "6.12")


@pytest.mark.parametrize("name", ["memory", "nodes", "clock", "era", "processes"])
def test_it_cannot_be_changed(machine, name):
    value = getattr(machine, name)
    with pytest.raises(AttributeError):
        setattr(machine, name, value)
    with pytest.raises(AttributeError):
        delattr(machine, name)


# Frames

def test_a_frame_is_what_the_process_has(machine, process):
    addr, [first, second] = filled(process, 2)
    process.write(addr + PAGE, b"other")
    with machine.frame(first) as view:
        assert (len(view), view.format, view.readonly, view.contiguous) == (PAGE, "B", True, True)
        assert bytes(view) == process.read(addr, PAGE)
        process.write(addr + 5, b"!")
        assert view[5] == ord("!")
    assert bytes(machine.frame(second)) == process.read(addr + PAGE, PAGE)


@pytest.mark.parametrize("still", [False, True])
def test_frames_of_an_image(machine, process, still):
    content = os.urandom(4 * PAGE)
    addr, pfns = image_of(process, content, still=still)
    assert min(pfns) * PAGE >= machine.memory
    assert b"".join(bytes(machine.frame(pfn)) for pfn in pfns) == content
    process.write(addr, b"mine")
    assert bytes(machine.frame(frames(process, addr, 1)[0])[:4]) == b"mine"


def test_a_merged_page_and_the_zero_page(machine, process):
    addr, _ = filled(process, 3)
    process.madvise(addr, 3 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    [pfn] = set(frames(process, addr, 3))
    with machine.frame(pfn) as view:
        assert bytes(view) == b"page" * 1024
        process.write(addr, b"x")       # a copy: what is merged does not change
        assert view[0] == ord("p")
        assert machine.check() == []
    assert bytes(machine.frame(0)) == bytes(PAGE)
    with machine.frame(0):
        assert machine.check() == []


def test_a_frame_of_a_huge_page():
    with ksm.Machine("8M", transparent_hugepage="always") as machine:
        process = machine.spawn()
        addr = process.mmap(2 << 20, addr=1 << 30)
        process.write(addr, b"".join(bytes([n % 251]) * PAGE for n in range(512)))
        word = process.page_table(addr + 7 * PAGE, PAGE)[0]
        assert word & ksm.PAGE_THP
        with machine.frame(word >> ksm.PAGE_FLAGS_SHIFT) as view:
            assert bytes(view) == bytes([7]) * PAGE
            process.madvise(addr, PAGE, ksm.MADV_DONTNEED)      # takes it apart, as far as that can be done
            process.exit()
            assert bytes(view) == bytes([7]) * PAGE
            assert machine.check() == []
        assert machine.check() == []
        assert machine.free_pages() == machine.total_pages() - 1


@pytest.mark.parametrize(("pfn", "number"), [(1000, errno.EBUSY), (1024, errno.EINVAL), (1 << 40, errno.EINVAL), (2**64 - 1, errno.EINVAL)])
def test_a_frame_that_has_no_page(machine, pfn, number):
    with pytest.raises(OSError, match=f"frame {pfn}") as caught:
        machine.frame(pfn)
    assert caught.value.errno == number
    machine.close()             # nothing was left of it


@pytest.mark.parametrize(("pfn", "error"), [(-1, ValueError), (2**64, ValueError), ("1", TypeError), (1.0, TypeError), (None, TypeError)])
def test_what_is_no_number_of_a_frame(machine, pfn, error):
    with pytest.raises(error):
        machine.frame(pfn)


def test_nobody_can_write_to_it(machine, process):
    _, [pfn] = filled(process, 1)
    view = machine.frame(pfn)
    with pytest.raises(TypeError):
        view[0] = 1
    with open("/dev/zero", "rb") as file, pytest.raises((TypeError, BufferError)):
        file.readinto(view)
    view.release()


def test_a_view_keeps_the_machine_open(machine, process):
    _, [pfn] = filled(process, 1)
    view = machine.frame(pfn)
    part = view[8:16].cast("I")
    view.release()
    with pytest.raises(BufferError):
        machine.close()
    assert not machine.closed
    part.release()
    machine.close()
    with pytest.raises(ValueError):
        machine.frame(pfn)


def test_a_view_outlives_its_process(machine, process):
    free = machine.free_pages()
    _, [pfn] = filled(process, 1)
    view = machine.frame(pfn)
    process.exit()
    assert machine.check() == []
    other = machine.spawn()
    filled(other, 900, b"else")         # nearly all that there is
    machine.drain_all_pages()
    assert bytes(view) == b"page" * 1024 and machine.check() == []
    view.release()
    other.exit()
    assert machine.free_pages() == free


def test_a_view_of_an_image_outlives_its_process(machine, process):
    """An image goes with its last process, and its addresses with it. Not while somebody looks; with the view it goes."""
    content = os.urandom(8 * PAGE)
    _, pfns = image_of(process, content, still=True)
    views = [machine.frame(pfns[3]), machine.frame(pfns[7])]
    with pytest.raises(OSError) as caught:
        machine.offline(pfns[0], 8)
    assert caught.value.errno == errno.EBUSY
    process.exit()
    assert [bytes(view) for view in views] == [content[3 * PAGE:4 * PAGE], content[7 * PAGE:]]
    assert machine.check() == []
    views.pop().release()
    assert bytes(views[0]) == content[3 * PAGE:4 * PAGE]
    views.pop().release()
    with pytest.raises(OSError) as caught:
        machine.frame(pfns[3])
    assert caught.value.errno == errno.EINVAL
    # Its place is another image's.
    _, again = image_of(machine.spawn(), content, still=True)
    assert again == pfns


def test_a_page_that_is_looked_at_stays_where_it_is(machine, process):
    addr, [pfn, other] = filled(process, 2)
    process.madvise(addr, 2 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.smart_scan = 0
    with machine.frame(pfn):
        machine.ksm.scan(3)
        assert machine.ksm.pages_shared == 0
        assert process.swap_out(addr, PAGE) == 0 and process.swap_entries() == 1
        process.touch(addr)
        assert frames(process, addr, 2) == [pfn, other]     # out of the process's table, and not of its frame
        with pytest.raises(OSError) as caught:
            machine.migrate(pfn)
        assert caught.value.errno in (errno.EAGAIN, errno.EBUSY)
        assert frames(process, addr, 2) == [pfn, other]
        assert machine.check() == []
    machine.ksm.scan(3)
    assert machine.ksm.pages_sharing == 1


def test_the_check_still_sees_references_that_are_missing(machine, process):
    """While somebody looks, a page may have more references than are known, not fewer."""
    _, [pfn, other] = filled(process, 2)
    machine._get_page(other)
    assert len(machine.check()) == 1
    with machine.frame(pfn):
        assert machine.check() == []
        machine._put_page(other)
    assert machine.check() == []


def test_what_a_view_names_as_its_object(machine, process):
    addr, [pfn] = filled(process, 1)
    view = machine.frame(pfn)
    frame = view.obj
    again = memoryview(frame)
    view.release()
    assert bytes(again) == process.read(addr, PAGE)
    again.release()
    process.exit()
    with pytest.raises(OSError):
        memoryview(frame)
    machine.close()
    with pytest.raises(ValueError):
        memoryview(frame)
    with pytest.raises(TypeError):
        type(frame)()
    with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError)):
        memoryview(type(frame).__new__(type(frame)))


def test_in_a_process_that_was_forked(machine, process):
    """The copy can be looked at there, and closed when nobody does."""
    _, [pfn] = filled(process, 1)
    view = machine.frame(pfn)
    child = os.fork()
    if child == 0:
        try:
            good = bytes(view) == b"page" * 1024
            try:
                machine.frame(pfn)
                good = False
            except RuntimeError:
                pass
            view.release()
            machine.close()
        except BaseException:
            good = False
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(view) == b"page" * 1024
    view.release()


def test_looking_while_others_merge_and_exit():
    """Whatever frame is looked at, and whoever frees it meanwhile."""
    with ksm.Machine("16M", max_memory="64M") as machine, tempfile.TemporaryFile() as file:
        content = b"".join(bytes([n % 7]) * PAGE for n in range(64))
        file.write(content)
        file.flush()
        stop, failures, looked = threading.Event(), [], []

        def live():
            while not stop.is_set():
                process = machine.spawn()
                addr = process.mmap_image(file, still=True)
                process.madvise(addr, 64 * PAGE, ksm.MADV_MERGEABLE)
                machine.ksm.scan()
                process.exit()

        def look(start):
            pfn = start
            while not stop.is_set():
                pfn = start if pfn > 4096 + 1600 else pfn + 1
                try:
                    with machine.frame(pfn) as view:
                        if len(set(bytes(view))) != 1:
                            failures.append(pfn)
                        looked.append(pfn)
                except OSError:
                    pass

        threads = [threading.Thread(target=live) for _ in range(2)] + [threading.Thread(target=look, args=(n,)) for n in (1, 4096)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == [] and len(looked) > 10
        machine.ksm.scan()
        assert machine.check() == []


# Processes

def test_processes_is_a_mapping_of_now(machine):
    processes = machine.processes
    assert len(processes) == 0 and not processes and list(processes) == []
    first, second = machine.spawn(), machine.spawn()
    assert isinstance(processes, collections.abc.Mapping)
    assert processes == {first.pid: first, second.pid: second} == processes and processes != {first.pid: first}
    assert processes == machine.processes and processes != [first.pid]
    assert processes[first.pid] is first and processes.get(second.pid) is second and processes.get(99) is None
    assert first.pid in processes and 99 not in processes and [] not in list(processes)
    assert list(processes) == list(processes.keys()) == [first.pid, second.pid] == list(reversed(processes))[::-1]
    assert list(processes.values()) == [first, second] and dict(processes.items()) == dict(processes) == processes.copy()
    assert processes | {99: None} == {**processes, 99: None} == {99: None} | processes
    with pytest.raises(KeyError):
        processes[99]
    second.exit()
    assert list(processes) == [first.pid]
    for process in processes.values():
        process.exit()
        machine.spawn()
    assert len(processes) == 1


class Thief:
    """Compares and adds itself with what it is given, and empties that."""

    def take(self, other):
        if hasattr(other, "clear"):
            other.clear()
        return False

    __eq__ = __ne__ = __or__ = __ror__ = take
    __hash__ = None


@pytest.mark.parametrize("way", [
    lambda each: each.__setitem__(1, None), lambda each: each.__delitem__(1), lambda each: each.clear(), lambda each: each.pop(1),
    lambda each: each.update({2: None}), lambda each: each == Thief(), lambda each: each != Thief(), lambda each: each | Thief(),
    lambda each: Thief() | each, lambda each: Thief() == each, lambda each: each.copy().clear(), lambda each: dict(each).clear(),
    lambda each: each.keys().mapping.__setitem__(1, None), lambda each: each.values().mapping.__eq__(Thief()),
    lambda each: each.items().mapping | Thief(), lambda each: setattr(each, "machine", None), lambda each: each.__init__(None),
    lambda each: each.__ior__({2: None}), lambda each: each.popitem(), lambda each: each.setdefault(2),
])  # fmt: skip
def test_processes_cannot_be_damaged(machine, process, way):
    processes = machine.processes
    with contextlib.suppress(TypeError, AttributeError):
        way(processes)
    assert dict(machine.processes) == dict(processes) == {process.pid: process}
    assert process.alive and machine.memory_failure(frames(process, filled(process, 1)[0], 1)[0]) is not None
