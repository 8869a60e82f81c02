# SPDX-License-Identifier: GPL-2.0-only
"""Bad calls raise what a Python user expects, and no input crashes the interpreter or damages the machine."""

import errno
import gc
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ksm

PAGE = ksm.PAGE_SIZE


@pytest.fixture
def machine():
    with ksm.Machine(memory="1M", max_memory="4M") as machine:
        yield machine
        assert machine.closed or machine.check() == []


# Machine()

@pytest.mark.parametrize("arguments", [
    {"memory": 0}, {"memory": -1}, {"memory": 4095}, {"memory": PAGE * 16 + 1}, {"memory": "1X"}, {"memory": ""}, {"memory": "-1M"},
    {"memory": "1M", "max_memory": "512K"}, {"memory": 1 << 50}, {"max_memory": "17T"}, {"nodes": 0}, {"nodes": 65}, {"nodes": -1},
    {"memory": "2M", "nodes": 2}, {"clock": "sundial"}, {"clock": None}, {"memory": 1 << 70},
])
def test_machines_that_cannot_be(arguments):
    with pytest.raises(ValueError, match=r"memory|nodes?|clock|bytes"):
        ksm.Machine(**arguments)


@pytest.mark.parametrize("arguments", [
    {"memory": None}, {"memory": 1.5}, {"memory": b"1M"}, {"nodes": "2"}, {"nodes": 1.0}, {"max_memory": 1e9}, {"memory": []},
    {"unknown": 1},
])
def test_machines_of_wrong_types(arguments):
    with pytest.raises(TypeError):
        ksm.Machine(**arguments)


def test_sizes():
    for memory in ("1M", "1m", "1MiB", "1 MB".replace(" ", ""), "1024K", 1 << 20):
        with ksm.Machine(memory=memory, max_memory="2M") as machine:
            assert machine.total_pages() == 256


def test_a_machine_is_made_once(machine):
    with pytest.raises(RuntimeError):
        machine.__init__("1M")


def test_a_machine_without_init():
    machine = ksm.Machine.__new__(ksm.Machine)
    assert repr(machine) == "<ksm.Machine not made>"
    for method in ("spawn", "free_pages", "vmstat", "check", "time", "drain_all_pages", "lru_add_drain_all"):
        with pytest.raises(ValueError, match="not made"):
            getattr(machine, method)()
    machine.close()
    machine.close()
    assert repr(machine) == "<ksm.Machine closed>"


def test_processes_are_not_made_by_hand():
    with pytest.raises(TypeError, match="spawn"):
        ksm.Process()
    with pytest.raises(TypeError, match="spawn"):
        ksm.Process.__new__(ksm.Process)
    with pytest.raises(TypeError):
        ksm.Ksm.__new__(ksm.Ksm)
    for bad in (None, 1, "machine"):
        with pytest.raises(TypeError):
            ksm.Ksm(bad)


# After the end

def test_everything_of_a_closed_machine(machine):
    process = machine.spawn()
    addr = process.mmap(PAGE)
    knobs = machine.ksm
    machine.close()
    machine.close()
    assert machine.closed
    assert not process.alive
    process.exit()
    calls = [machine.spawn, machine.free_pages, machine.vmstat, machine.check, machine.time, machine.lru_add_drain_all,
             machine.total_pages, machine.drain_all_pages, knobs.scan, knobs.names, knobs.attributes, process.maps, process.rss,
             process.fork, process.exec,
             process.ksm_stat, process.brk, lambda: machine.advance(1), lambda: memoryview(machine), lambda: process.read(addr, 1),
             lambda: process.write(addr, b"x"), lambda: process.mmap(PAGE), lambda: knobs.run, lambda: setattr(knobs, "run", 1)]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    repr(machine), repr(process), repr(knobs)


def test_everything_of_an_exited_process(machine):
    process = machine.spawn("late")
    addr = process.mmap(PAGE)
    process.exit()
    process.exit()
    calls = [process.maps, process.rss, process.fork, process.exec, process.ksm_stat, process.brk, lambda: process.read(addr, 1),
             lambda: process.write(addr, b"x"), lambda: process.mmap(PAGE), lambda: process.munmap(addr, PAGE), lambda: process.touch(addr),
             lambda: process.madvise(addr, PAGE, 12), lambda: process.page_table(addr, PAGE), lambda: process.ksm_merging_pages,
             lambda: process.prctl(ksm.PR_GET_MEMORY_MERGE), lambda: process.update(addr, bytes(PAGE)),
             lambda: process.mprotect(addr, 1, 1), lambda: process.mremap(addr, PAGE, PAGE),
             lambda: process.read(addr, 1 << 45)]  # no room is asked for that it will not need
    for call in calls:
        with pytest.raises(ProcessLookupError, match="late"):
            call()


def test_a_view_keeps_the_machine_open(machine):
    view = memoryview(machine)
    assert view.readonly and view.nbytes == 256 * PAGE
    with pytest.raises(BufferError):
        machine.close()
    assert machine.free_pages() == 255
    with pytest.raises(TypeError):
        view[0] = 1
    view.release()
    machine.close()


def test_machines_that_are_forgotten():
    """A process keeps its machine alive. Without any reference the machine is freed."""
    process = ksm.Machine(memory="1M", max_memory="1M").spawn()
    gc.collect()
    addr = process.mmap(PAGE)
    process.write(addr, b"alive")
    assert process.read(addr, 5) == b"alive"
    del process
    gc.collect()


# Arguments

def bad_calls(machine, process, addr, bad):
    """Calls with something bad where an address or a length has to be."""
    knobs = machine.ksm
    return [lambda: process.mmap(bad), lambda: process.munmap(bad, PAGE), lambda: process.munmap(addr, bad), lambda: process.read(bad, 1),
            lambda: process.read(addr, bad), lambda: process.write(bad, b"x"), lambda: process.brk(bad), lambda: process.prctl(67, bad),
            lambda: process.mremap(addr, PAGE, bad), lambda: process.touch(bad), lambda: process.page_table(addr, bad),
            lambda: knobs.scan(pages=bad) if bad is not None else len(1), lambda: knobs.scan(bad) if bad is not None else len(1)]


def bad_numbers(process, addr, bad):
    """Calls with something bad where an int has to be."""
    return [lambda: process.mmap(PAGE, bad), lambda: process.mmap(PAGE, flags=bad), lambda: process.mprotect(addr, PAGE, bad),
            lambda: process.madvise(addr, PAGE, bad), lambda: process.prctl(bad), lambda: process.mremap(addr, PAGE, PAGE, bad)]


@pytest.mark.parametrize("bad", [None, 1.5, "4096", b"x", [], object()])
def test_wrong_types(machine, bad):
    process = machine.spawn()
    addr = process.mmap(4 * PAGE)
    for call in bad_calls(machine, process, addr, bad) + bad_numbers(process, addr, bad):
        with pytest.raises(TypeError):
            call()
    for buffer in (None, 1, 1.5, "text", [1]):
        with pytest.raises(TypeError):
            process.write(addr, buffer)
        with pytest.raises(TypeError):
            process.update(addr, buffer)
    with pytest.raises(TypeError):
        machine.advance("1")


@pytest.mark.parametrize("bad", [-1, 1 << 64, -(1 << 70)])
def test_numbers_out_of_range(machine, bad):
    process = machine.spawn()
    addr = process.mmap(4 * PAGE)
    for call in bad_calls(machine, process, addr, bad):
        with pytest.raises(ValueError, match=r"must be|is an unsigned"):
            call()


@pytest.mark.parametrize("bad", [1 << 31, 1 << 64, -(1 << 32)])
def test_numbers_larger_than_an_int(machine, bad):
    process = machine.spawn()
    addr = process.mmap(4 * PAGE)
    for call in bad_numbers(process, addr, bad):
        with pytest.raises(ValueError, match="must be"):
            call()


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), 1.0])
def test_clocks_that_cannot_be_moved(machine, bad):
    with pytest.raises(ValueError, match="clock"):
        machine.advance(bad)


def test_update_takes_whole_pages(machine):
    process = machine.spawn()
    addr = process.mmap(4 * PAGE)
    for place, data in ((addr + 1, bytes(PAGE)), (addr, bytes(PAGE - 1)), (addr, b"x")):
        with pytest.raises(ValueError, match="whole pages"):
            process.update(place, data)
    assert process.update(addr, b"") == 0
    process.write(addr, b"")


def test_buffers_of_any_kind(machine):
    process = machine.spawn()
    addr = process.mmap(2 * PAGE)
    process.write(addr, bytearray(b"abc"))
    process.write(addr + 3, memoryview(b"defg")[::1])
    assert process.read(addr, 7) == b"abcdefg"
    with pytest.raises((ValueError, BufferError, TypeError)):
        process.write(addr, memoryview(b"d.e.f.")[::2])


def test_files_of_sysfs(machine):
    knobs = machine.ksm
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        knobs.nonsense  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        knobs.nonsense = 1
    with pytest.raises(AttributeError, match="can only be read"):
        knobs.pages_shared = 1
    with pytest.raises(KeyError):
        knobs.show("nonsense")
    for bad in (1, None, 1 << 70, [b"1"]):
        with pytest.raises(TypeError):
            knobs.store("run", bad)
    knobs.store("run", b"0\n")
    for name, value, error in (("run", 3, errno.EINVAL), ("run", -1, errno.EINVAL), ("run", "one", errno.EINVAL), ("run", "", errno.EINVAL),
                               ("max_page_sharing", 1, errno.EINVAL), ("max_page_sharing", 1 << 31, errno.ERANGE),
                               ("merge_across_nodes", 2, errno.EINVAL), ("merge_across_nodes", 1 << 64, errno.ERANGE),
                               ("pages_to_scan", 1 << 32, errno.EINVAL), ("sleep_millisecs", "1 2", errno.EINVAL),
                               ("use_zero_pages", "maybe", errno.EINVAL), ("advisor_mode", "fast", errno.EINVAL),
                               ("advisor_target_scan_time", 0, errno.EINVAL), ("smart_scan", "x" * 5000, errno.EINVAL)):
        with pytest.raises(OSError) as info:
            setattr(knobs, name, value)
        assert info.value.errno == error, name
    for bad in (None, 1.5, [], object()):
        with pytest.raises(TypeError):
            knobs.run = bad
    assert knobs.run == 0


def test_images(machine, tmp_path):
    process = machine.spawn()
    path = tmp_path / "image"
    path.write_bytes(b"i" * 4 * PAGE + b"rest")
    with open(path, "rb") as image:
        for arguments in ({}, {"offset": 1}, {"length": 0}, {"length": PAGE + 1}, {"offset": 8 * PAGE, "length": PAGE},
                          {"length": 5 * PAGE}, {"length": PAGE, "node": 1}, {"length": PAGE, "node": -1},
                          {"offset": -PAGE, "length": PAGE}):
            with pytest.raises(ValueError, match=r"image|file|node|offset|length|must be"):
                process.mmap_image(image, **arguments)
        addr = process.mmap_image(image, length=4 * PAGE)
        with pytest.raises(FileExistsError):
            process.mmap_image(image, length=PAGE, addr=addr)
    for bad in (None, "path", 1.5):
        with pytest.raises((TypeError, AttributeError)):
            process.mmap_image(bad, length=PAGE)
    with pytest.raises(OSError, match="descriptor"):
        process.mmap_image(-1, length=PAGE)
    big = tmp_path / "big"
    big.write_bytes(b"")
    os.truncate(big, 8 << 20)
    with open(big, "rb") as image, pytest.raises(OSError, match="allocate"):
        process.mmap_image(image)
    assert machine.check() == []
    assert process.read(addr, 4 * PAGE) == b"i" * 4 * PAGE


# Anything at all

INTS = st.one_of(
    st.integers(-2, 20),
    st.integers(0, 40).map(lambda i: i * PAGE),
    st.integers(0, 40).map(lambda i: 0x7ffff7ff0000 + i * PAGE),
    st.integers(0, 20).map(lambda i: 0x555555556000 + i * PAGE),
    st.sampled_from([1 << 31, (1 << 31) - 1, 1 << 32, (1 << 47) - PAGE, (1 << 47) - 2 * PAGE, 1 << 47, 1 << 62, 1 << 63, (1 << 64) - PAGE,
                     (1 << 64) - 1, 1 << 64, -1 << 63, 1 << 100]),
)
WILD = st.one_of(INTS, INTS, INTS, INTS, st.none(), st.floats(), st.text(max_size=8), st.binary(max_size=64), st.booleans(),
                 st.just([]), st.just(object()), st.sampled_from([b"x" * PAGE, b"\0" * 3 * PAGE]))
METHODS = {
    "process": ["mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "prctl", "write", "read", "touch", "update", "page_table",
                "present", "swap_out", "move_pages", "maps", "rss", "ksm_stat", "fork", "exec", "exit", "mmap_image"],
    "machine": ["spawn", "total_pages", "free_pages", "vmstat", "slabinfo", "lru_add_drain_all", "drain_all_pages", "advance", "time",
                "check", "swapon", "swapoff", "swap_pages", "migrate", "offline", "online", "memory_failure",
                "soft_offline", "fail"],
    "ksm": ["show", "store", "names", "attributes"],
}
ATTRIBUTES = ["run", "pages_to_scan", "sleep_millisecs", "merge_across_nodes", "max_page_sharing", "use_zero_pages", "smart_scan",
              "stable_node_chains_prune_millisecs", "advisor_mode", "advisor_max_cpu", "advisor_target_scan_time", "nonsense",
              "pages_shared"]
CALL = st.one_of(
    *(st.tuples(st.just(kind), st.sampled_from(names), st.lists(WILD, max_size=5)) for kind, names in METHODS.items()),
    st.tuples(st.just("process"), st.sampled_from(["mmap", "write", "madvise", "mremap", "munmap"]),
              st.lists(INTS, min_size=2, max_size=4)),
    st.tuples(st.just("set"), st.sampled_from(ATTRIBUTES), st.lists(WILD, min_size=1, max_size=1)),
    st.tuples(st.just("scan"), st.just("scan"), st.lists(st.integers(0, 50), max_size=1)),
)
EXPECTED = (TypeError, ValueError, OSError, AttributeError, KeyError, MemoryError)


def affordable(name, arguments):
    """Whether a call is cheap. Left out are calls that would be done, and would take long or fill the memory with their answer."""
    return not (name in ("read", "page_table", "present", "touch", "advance", "swap_out", "move_pages")
                and any(isinstance(a, int) and (1 << 24) < a < (1 << 62) for a in arguments[1:]))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(st.lists(CALL, min_size=5, max_size=40))
def test_anything_at_all(calls):
    with ksm.Machine(memory="1M", max_memory="2M") as machine:
        processes = [machine.spawn()]
        start = processes[0].mmap(16 * PAGE)
        processes[0].write(start, b"same" * (16 * PAGE // 4))
        for kind, name, arguments in calls:
            if not affordable(name, arguments):
                continue
            process = processes[len(arguments) % len(processes)]
            try:
                if kind == "set":
                    setattr(machine.ksm, name, *arguments)
                    machine.ksm.run = 0
                elif kind == "scan":
                    machine.ksm.scan(pages=sum(arguments))
                else:
                    result = getattr({"process": process, "machine": machine, "ksm": machine.ksm}[kind], name)(*arguments)
                    if isinstance(result, ksm.Process) and len(processes) < 6:
                        processes.append(result)
            except EXPECTED:
                pass
        assert machine.check() == []
        for process in processes:
            process.exit()
        assert machine.check() == []
