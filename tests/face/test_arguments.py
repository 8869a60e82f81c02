# SPDX-License-Identifier: GPL-2.0-only
"""Arguments whose own methods raise, lie, or call the machine: each is asked once, before anything is made or locked."""

import errno
from contextlib import suppress

import pytest

import ksm
from ksm.estimate.savings import Tally
from ksm.record.recorder import Recorder

PAGE = ksm.PAGE_SIZE


@pytest.fixture
def machine():
    with ksm.Machine("1M", max_memory="4M", swap="64K", clock="manual", plain=True) as machine:
        yield machine
        machine.ksm.scan()
        assert machine.closed or machine.check() == []


@pytest.fixture
def process(machine):
    return machine.spawn()


class NoName:
    def __str__(self):
        raise ZeroDivisionError


class WrongName:
    def __str__(self):
        return 5


class Number:
    """A number that has only __index__(), and nothing else that an int has."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Liar:
    """An argument that is another number each time it is asked."""

    def __init__(self, *values):
        self.values = list(values)

    def __index__(self):
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]


class Raising:
    def __index__(self):
        raise ZeroDivisionError

    __eq__ = __hash__ = __len__ = __bool__ = __float__ = __str__ = __repr__ = __buffer__ = __index__


class Trickster:
    """A number that calls something before it answers."""

    def __init__(self, value, action):
        self.value, self.action = value, action

    def __index__(self):
        self.action()
        return self.value


def test_names_that_raise(machine, process):
    process.write(process.mmap(4 * PAGE), b"x" * 4 * PAGE)
    before, free, mm = machine.slabinfo(), machine.free_pages(), process.mm_id
    for call in (process.fork, machine.spawn, process.exec):
        for name, error in ((NoName(), ZeroDivisionError), (WrongName(), TypeError)):
            with pytest.raises(error):
                call(name)
    assert machine.slabinfo() == before
    assert machine.free_pages() == free
    assert process.mm_id == mm
    assert list(machine.processes) == [process.pid]


def test_names(machine, process):
    assert process.name == f"process-{process.pid}"
    assert process.fork(5).name == "5"
    process.exec(b"x")
    assert process.name == "b'x'"
    process.exec()
    assert process.name == "b'x'"
    process.name = "other"
    assert repr(process) == f"<ksm.Process {process.pid} 'other'>"
    for bad in (5, None, NoName()):
        with pytest.raises(TypeError):
            process.name = bad
    assert process.name == "other"


def test_a_failed_fork_leaves_nothing(machine, process):
    pid = process.pid
    process.write(process.mmap(4 * PAGE), b"x" * 4 * PAGE)
    before = machine.slabinfo()
    for what in ("mm_struct", "vm_area_struct", "anon_vma", "anon_vma_chain"):
        machine.fail(what)
        with pytest.raises(OSError, match="fork of process-") as info:
            process.fork()
        assert info.value.errno == errno.ENOMEM
    machine.fail("mm_struct")
    with pytest.raises(OSError, match="spawn"):
        machine.spawn()
    assert machine.slabinfo() == before
    assert list(machine.processes) == [pid]
    assert process.fork().pid == pid + 1


HUGE = (1 << 20, (1 << 64) - PAGE)     # so many passes take for ever


def calls(machine, process, addr, bad):
    """Calls with `bad` in each place where an argument can be."""
    knobs = machine.ksm
    return [
        lambda: process.mmap(bad), lambda: process.mmap(PAGE, bad), lambda: process.mmap(PAGE, 3, bad),
        lambda: process.mmap(PAGE, 3, 34, bad),
        lambda: process.munmap(bad, PAGE), lambda: process.munmap(addr, bad), lambda: process.mprotect(bad, PAGE, 1),
        lambda: process.mprotect(addr, bad, 1), lambda: process.mprotect(addr, PAGE, bad), lambda: process.mremap(bad, PAGE, PAGE),
        lambda: process.mremap(addr, bad, PAGE), lambda: process.mremap(addr, PAGE, bad), lambda: process.mremap(addr, PAGE, PAGE, bad),
        lambda: process.mremap(addr, PAGE, PAGE, 1, bad), lambda: process.madvise(bad, PAGE, 12), lambda: process.madvise(addr, bad, 12),
        lambda: process.madvise(addr, PAGE, bad), lambda: process.brk(bad), lambda: process.prctl(bad), lambda: process.prctl(67, bad),
        lambda: process.write(bad, b"x"), lambda: process.read(bad, 1), lambda: process.read(addr, bad), lambda: process.touch(bad),
        lambda: process.touch(addr, bad), lambda: process.update(bad, bytes(PAGE)), lambda: process.swap_out(bad, PAGE),
        lambda: process.swap_out(addr, bad), lambda: process.move_pages(bad, PAGE, 0), lambda: process.move_pages(addr, bad, 0),
        lambda: process.move_pages(addr, PAGE, bad), lambda: process.page_table(bad, PAGE), lambda: process.page_table(addr, bad),
        lambda: process.present(bad, PAGE), lambda: process.present(addr, bad), lambda: machine.spawn(None, bad),
        lambda: machine.migrate(bad), lambda: machine.migrate(5, bad), lambda: machine.offline(bad, 512), lambda: machine.offline(512, bad),
        lambda: machine.online(bad, 512), lambda: machine.online(512, bad), lambda: machine.memory_failure(bad),
        lambda: machine.soft_offline(bad), lambda: machine.fail(bad),
        lambda: machine.fail("page", bad), lambda: machine.fail("page", 0, bad), lambda: machine.swapon(bad), lambda: machine.advance(bad),
        lambda: machine.advance(1, ksmd=bad), lambda: machine.record(bad),
        lambda: knobs.scan(bad) if getattr(bad, "value", bad) not in HUGE else None, lambda: knobs.scan(pages=bad),
        lambda: knobs.trace.start(bad), lambda: knobs.trace.read(bad), lambda: setattr(knobs, "run", bad), lambda: knobs.store("run", bad),
        lambda: setattr(machine, "transparent_hugepage", bad), lambda: machine._get_page(bad), lambda: machine._put_page(bad),
        lambda: Recorder(machine, bad), lambda: process.write(addr, bad), lambda: process.update(addr, bad),
        lambda: Tally(machine).add(bad),
    ]


def test_arguments_that_raise(machine, process):
    addr = process.mmap(4 * PAGE)
    process.write(addr, b"x" * 4 * PAGE)
    before = machine.slabinfo(), machine.free_pages()
    for call in calls(machine, process, addr, Raising()):
        with pytest.raises((ZeroDivisionError, TypeError, ValueError)):
            call()
    assert (machine.slabinfo(), machine.free_pages()) == before


@pytest.mark.parametrize("value", [0, 1, *HUGE])
def test_arguments_that_are_only_numbers(machine, process, value):
    """Their errors are those of an int of the same value."""
    addr = process.mmap(4 * PAGE)
    for like_int, like_number in zip(calls(machine, process, addr, value), calls(machine, process, addr, Number(value)), strict=True):
        errors = []
        for call in (like_int, like_number):
            machine.fail("page", 0)
            if machine.ksm.trace.enabled:
                machine.ksm.trace.stop()
            try:
                result = call()
                if hasattr(result, "stop"):
                    result.stop()
            except (OSError, ValueError, TypeError, MemoryError) as error:
                errors.append(error)
        if len(errors) == 2 and isinstance(errors[0], OSError):
            assert (type(errors[1]), errors[1].errno) == (type(errors[0]), errors[0].errno)
        elif len(errors) == 2 and not isinstance(errors[1], TypeError):
            assert type(errors[1]) is type(errors[0])


def test_arguments_that_close_the_machine():
    """Arguments are asked before the machine is entered."""
    i, number = 0, 1
    while i < number:
        machine = ksm.Machine("1M", max_memory="1M", clock="manual", plain=True)
        process = machine.spawn()
        addr = process.mmap(4 * PAGE)
        number = len(calls(machine, process, addr, 1))
        with suppress(ValueError, TypeError):
            calls(machine, process, addr, Trickster(1, machine.close))[i]()
        machine.close()
        i += 1
    assert number > 60


def test_arguments_that_change(machine, process, tmp_path):
    """The number that was checked is the one that is used."""
    with pytest.raises(ValueError, match="capacity"):
        machine.ksm.trace.start(Liar(0, 16))
    machine.ksm.trace.start(Liar(16, 1 << 62))
    assert machine.ksm.trace.capacity == 16
    assert machine.ksm.scan(pages=Liar(0, -1, 1 << 40)) is False
    path = tmp_path / "image"
    path.write_bytes(b"i" * 2 * PAGE)

    class Offset(Number):
        def __radd__(self, other):
            return 0

        __add__ = __rsub__ = __radd__

    with open(path, "rb") as image:
        for arguments in ({"offset": Offset(1 << 40), "length": PAGE}, {"offset": Offset(PAGE), "length": 2 * PAGE}):
            with pytest.raises(ValueError, match="the file ends"):
                process.mmap_image(image, **arguments)
        addr = process.mmap_image(image, Number(PAGE), Number(PAGE))
        assert process.read(addr, PAGE) == b"i" * PAGE

    class Length(int):
        def __radd__(self, other):
            return 1 << 60

    mapped = process.mmap(PAGE)
    process.touch(mapped, Length(1))
    assert process.rss() == 2


def odd_and_even(machine, number=8):
    """A process with pages that have frames side by side, each with bytes of its own: where they are, and the first frame."""
    process = machine.spawn()
    addr = process.mmap(number * PAGE)
    pages = {}
    for i in range(number):
        process.write(addr + i * PAGE, bytes([i, 255 - i]) * (PAGE // 2))
        pages[process.page_table(addr + i * PAGE, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT] = addr + i * PAGE
    first = next(pfn for pfn in sorted(pages) if pfn + 1 in pages and pfn + 2 in pages)
    return process, [pages[first + i] for i in range(3)], first * PAGE


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("shift", [1, 8, 100, PAGE - 1, PAGE, PAGE + 3])
def test_writing_what_the_machine_itself_has(machine, shift, force):
    """A view of the frames that are written, some bytes further on: what it had when the call began is what is written."""
    process, (one, two, three), at = odd_and_even(machine)
    assert len({one, two, three}) == 3
    end = 3 * PAGE
    there = process.mremap(three, PAGE, PAGE, 1, process.mmap(8 * PAGE) + 2 * PAGE) - 2 * PAGE
    process.mremap(one, PAGE, PAGE, 1, there)
    process.mremap(two, PAGE, PAGE, 1, there + PAGE)
    before = process.read(there, end)
    for data, to in ((slice(at, at + end - shift), shift), (slice(at + shift, at + end), 0)):
        process.write(there, before)
        with memoryview(machine) as view, view[data] as part:
            assert bytes(view[at : at + end]) == before
            process.write(there + to, part, force=force)
        expected = bytearray(before)
        expected[to : to + end - shift] = before[data.start - at : data.stop - at]
        assert process.read(there, end) == expected


@pytest.mark.parametrize("write", ["write", "update"])
def test_writing_a_merged_page_onto_itself(machine, write):
    """It is copied, and its frame may be free before it is read."""
    process = machine.spawn()
    addr = process.mmap(2 * PAGE)
    process.write(addr, b"ab" * PAGE)
    process.madvise(addr, 2 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    process.munmap(addr + PAGE, PAGE)
    (word,) = process.page_table(addr, PAGE)
    assert word & ksm.PAGE_KSM
    at = (word >> ksm.PAGE_FLAGS_SHIFT) * PAGE
    with memoryview(machine) as view, view[at : at + PAGE] as page:
        getattr(process, write)(addr, page)
    assert process.read(addr, PAGE) == b"ab" * (PAGE // 2)


@pytest.mark.parametrize("what", ["p.name", "p.pid", "p.node", "p.machine", "m.ksm", "m.transparent_hugepage", "m.processes", "m.plain",
                                  "m.closed", "m.ksm.run", "m.ksm.pages_shared", "m.ksm.nothing", "m.ksm.trace", "m.ksm.trace.lost"])
def test_attributes_that_cannot_be_deleted(machine, process, what):
    def delete():
        exec(f"del {what}", {"m": machine, "p": process})

    with pytest.raises(AttributeError):
        delete()
    assert process.name == f"process-{process.pid}"
    assert machine.transparent_hugepage == "madvise"


def test_the_clock_does_not_overflow(machine):
    for _ in range(9):
        machine.advance(999999999.0, ksmd=999999999.0)
    before = machine.time()
    assert before == pytest.approx(9 * 999999999.0)
    for _ in range(3):
        with pytest.raises(ValueError, match="clock"):
            machine.advance(999999999.0)
    assert machine.time() == before
    machine.advance(223372000.0)
    assert machine.time() > before
    machine.ksm.advisor_mode = "scan-time"
    machine.ksm.scan(2)
    assert machine.ksm.pages_to_scan > 0


@pytest.mark.parametrize("ksmd", [float("nan"), float("inf"), -float("inf"), -1.0, 1.5, 1e300, 1e9])
def test_processor_time_that_cannot_be(machine, ksmd):
    with pytest.raises(ValueError, match="ksmd"):
        machine.advance(1.0, ksmd=ksmd)
    assert machine.time() == 0


@pytest.mark.parametrize("seconds", [1e9, 1e10, 1e300, float("nan"), float("inf"), -float("inf"), -1e-9, -0.5])
def test_times_that_cannot_be(machine, seconds):
    with pytest.raises(ValueError, match="clock"):
        machine.advance(seconds)
    assert machine.time() == 0


@pytest.mark.parametrize("length", [(1 << 64) - 1, (1 << 64) - PAGE + 1, 1 << 63])
def test_lengths_that_no_address_space_has(process, length):
    """Rounded up to whole pages, these lengths would overflow to 0, or be larger than all addresses."""
    for call in (process.page_table, process.present):
        with pytest.raises(ValueError, match="are the most that a table is made of"):
            call(0, length)
    with pytest.raises(OSError, match="too long") as caught:
        process.move_pages(0, length, 0)
    assert caught.value.errno == errno.E2BIG
