# SPDX-License-Identifier: GPL-2.0-only
"""Calls everything of a machine that is not made yet, was never made, or is closed. Prints a line for each call that is not refused.

    python half_made.py
"""

import copy
import operator
import pickle
from contextlib import suppress

import ksm
from ksm.check import check
from ksm.estimate.savings import Tally
from ksm.process import processes_by_mm, spawn
from ksm.record.recorder import Recorder
from ksm.record.recording import Recording
from ksm.record.snapshot import snapshot
from ksm.trace import Trace
from ksm.views import Processes, frame_of

MACHINE = {
    "advance": lambda m: m.advance(1), "check": lambda m: m.check(), "clock": lambda m: m.clock,
    "drain_all_pages": lambda m: m.drain_all_pages(), "draw": lambda m: m.draw(), "era": lambda m: m.era, "frame": lambda m: m.frame(0),
    "fail": lambda m: m.fail("page"), "free_pages": lambda m: m.free_pages(), "ksm": lambda m: m.ksm.run,
    "lru_add_drain_all": lambda m: m.lru_add_drain_all(), "memory_failure": lambda m: m.memory_failure(1),
    "soft_offline": lambda m: m.soft_offline(1),
    "memory": lambda m: m.memory, "nodes": lambda m: m.nodes, "migrate": lambda m: m.migrate(1),
    "offline": lambda m: m.offline(512, 512), "online": lambda m: m.online(512, 512),
    "pages": lambda m: m.pages, "key_name": lambda m: m.key_name, "threads": lambda m: m.threads, "plain": lambda m: m.plain,
    "record": lambda m: m.record(),
    "slabinfo": lambda m: m.slabinfo(), "spawn": lambda m: m.spawn(),
    "swap_pages": lambda m: m.swap_pages(), "swapoff": lambda m: m.swapoff(), "swapon": lambda m: m.swapon("64K"),
    "time": lambda m: m.time(), "total_pages": lambda m: m.total_pages(), "transparent_hugepage": lambda m: m.transparent_hugepage,
    "vmstat": lambda m: m.vmstat(), "lost_pages": lambda m: m.lost_pages(),
}
# These answer, or do nothing, in whatever state the machine is.
HARMLESS = {"close": lambda m: m.close(), "closed": lambda m: m.closed, "processes": lambda m: m.processes}
KSM = {
    "attributes": lambda k: k.attributes(), "names": lambda k: k.names(), "scan": lambda k: k.scan(), "show": lambda k: k.show("run"),
    "store": lambda k: k.store("run", "1"), "trace": lambda k: k.trace.start(),
}
TRACE = {
    "capacity": lambda t: t.capacity, "enabled": lambda t: t.enabled, "lost": lambda t: t.lost, "read": lambda t: t.read(),
    "start": lambda t: t.start(), "stop": lambda t: t.stop(),
}
MORE = {
    "memoryview": memoryview, "transparent_hugepage = always": lambda m: setattr(m, "transparent_hugepage", "always"),
    "migrate to a node": lambda m: m.migrate(1, 0), "spawn on a node": lambda m: m.spawn(None, 0), "_get_page": lambda m: m._get_page(1),
    "_put_page": lambda m: m._put_page(1), "_count_as_written": lambda m: m._count_as_written(), "check()": check, "Tally": Tally,
    "spawn()": lambda m: spawn(m, None, 0), "Recorder": lambda m: Recorder(m, 10), "Recording": Recording,
    "frame_of()": lambda m: frame_of(m, 0), "snapshot()": snapshot,
    "len(Trace)": lambda m: len(Trace(m)), "Ksm.run": lambda m: ksm.Ksm(m).run, "Ksm.run = 1": lambda m: setattr(ksm.Ksm(m), "run", 1),
    "Ksm.scan(pages)": lambda m: ksm.Ksm(m).scan(pages=5), "dir(Ksm)": lambda m: dir(ksm.Ksm(m)),
    "with": lambda m: m.__enter__().free_pages(),
    **{f"Ksm.{name}": lambda m, call=call: call(ksm.Ksm(m)) for name, call in KSM.items()},
    **{f"Trace.{name}": lambda m, call=call: call(Trace(m)) for name, call in TRACE.items()},
}
REFUSED = {**MACHINE, **MORE}
# Of a process whose machine is closed
PROCESS = {
    "brk": lambda p: p.brk(), "exec": lambda p: p.exec(), "fork": lambda p: p.fork(),
    "ksm_merging_pages": lambda p: p.ksm_merging_pages, "ksm_process_profit": lambda p: p.ksm_process_profit,
    "ksm_rmap_items": lambda p: p.ksm_rmap_items, "ksm_stat": lambda p: p.ksm_stat(), "ksm_zero_pages": lambda p: p.ksm_zero_pages,
    "load": lambda p: p.load(4096, bytes(32)),
    "madvise": lambda p: p.madvise(4096, 4096, 12), "maps": lambda p: p.maps(), "mm_id": lambda p: p.mm_id,
    "mmap": lambda p: p.mmap(4096), "move_pages": lambda p: p.move_pages(4096, 4096, 0),
    "mprotect": lambda p: p.mprotect(4096, 4096, 1), "mremap": lambda p: p.mremap(4096, 4096, 8192),
    "munmap": lambda p: p.munmap(4096, 4096), "node": lambda p: p.node, "page_table": lambda p: p.page_table(4096, 4096),
    "prctl": lambda p: p.prctl(68), "present": lambda p: p.present(4096, 4096), "read": lambda p: p.read(4096, 1),
    "rss": lambda p: p.rss(), "smaps": lambda p: p.smaps(), "swap_entries": lambda p: p.swap_entries(),
    "swap_out": lambda p: p.swap_out(4096, 4096), "touch": lambda p: p.touch(4096), "update": lambda p: p.update(4096, bytes(4096)),
    "write": lambda p: p.write(4096, b"x"), "mmap_image": lambda p: p.mmap_image(0, 0, 4096),
}
HARMLESS_PROCESS = {"alive": lambda p: p.alive, "exit": lambda p: p.exit(), "machine": lambda p: p.machine, "name": lambda p: p.name,
                    "pid": lambda p: p.pid}


def refused(what, call, argument):
    """Print a line if the call does anything but raise ValueError or RuntimeError."""
    try:
        call(argument)
    except (ValueError, RuntimeError):
        return
    except BaseException as error:
        print(f"{what}: {error!r}")
    else:
        print(f"{what}: done")


def harmless(machine):
    repr(machine), machine.closed, len(machine.processes)


class InTheMiddle:
    """An argument of Machine() that calls the machine while it is being made."""

    def __init__(self, machine, call, what):
        self.machine, self.call, self.what = machine, call, what

    def __index__(self):
        refused(self.what, self.call, self.machine)
        harmless(self.machine)
        return 1


def never_made():
    for what, call in REFUSED.items():
        machine = ksm.Machine.__new__(ksm.Machine)
        refused(f"never made: {what}", call, machine)
        harmless(machine)


def being_made():
    for place in ("memory", "nodes", "max_memory", "swap"):
        for what, call in REFUSED.items():
            machine = ksm.Machine.__new__(ksm.Machine)
            argument = InTheMiddle(machine, call, f"{place} of a machine being made: {what}")
            with suppress(ValueError):      # 1 is no size
                machine.__init__(**{"memory": "1M", "max_memory": "1M", "plain": True, place: argument})
            machine.close()
    for what, call in REFUSED.items():
        machine = ksm.Machine.__new__(ksm.Machine)

        class Plain:
            def __bool__(self, machine=machine, what=what, call=call):
                refused(f"plain of a machine being made: {what}", call, machine)
                return True

        machine.__init__("1M", plain=Plain())
        assert machine.plain
        machine.close()


def made_by_its_argument():
    machine = ksm.Machine.__new__(ksm.Machine)

    class Nested:
        def __index__(self):
            machine.__init__("1M", max_memory="1M")
            return 1 << 20

    refused("made by its argument", lambda m: m.__init__(Nested()), machine)
    assert machine.free_pages() == 255 and machine.check() == []
    machine.close()


def closed_by_its_argument():
    machine = ksm.Machine.__new__(ksm.Machine)

    class Closing:
        def __index__(self):
            machine.close()
            return 1

    refused("closed by its argument", lambda m: m.__init__("1M", nodes=Closing()), machine)
    for what, call in REFUSED.items():
        refused(f"closed by its argument: {what}", call, machine)


def not_any_more():
    machine = ksm.Machine("1M", max_memory="1M", plain=True)
    process, trace, knobs, recording = machine.spawn(), machine.ksm.trace, machine.ksm, machine.record()
    machine.close()
    for what, call in REFUSED.items():
        refused(f"closed: {what}", call, machine)
    for what, call in KSM.items():
        refused(f"closed: Ksm.{what}", call, knobs)
    for what, call in TRACE.items():
        refused(f"closed: Trace.{what}", call, trace)
    for what, call in PROCESS.items():
        refused(f"closed: Process.{what}", call, process)
    refused("closed: note()", lambda r: r.note("x"), recording)
    refused("closed: stop()", lambda r: r.stop(), recording)
    refused("closed: data()", lambda r: r.data(), recording)
    for call in HARMLESS_PROCESS.values():
        call(process)
    assert not hasattr(knobs, "__nothing__")
    harmless(machine)


def copies():
    with ksm.Machine("1M", max_memory="1M", plain=True) as machine:
        recording = machine.record()
        things = [machine, machine.ksm, machine.ksm.trace, machine.spawn(), recording, recording._recorder, Tally(machine)]
        for thing in (*things, ksm.Machine.__new__(ksm.Machine)):
            for how in (copy.copy, copy.deepcopy, pickle.dumps, operator.methodcaller("__reduce__")):
                try:
                    how(thing)
                except TypeError as error:
                    if "copied" not in str(error):
                        print(f"{type(thing).__name__}: {error}")
                else:
                    print(f"{type(thing).__name__}: copied")


def nones():
    calls = [Trace, ksm.Ksm, Tally, check, Recording, lambda n: Recorder(n, 1), lambda n: spawn(n, None, 0), processes_by_mm, Processes,
             lambda n: frame_of(n, 0)]
    for i, call in enumerate(calls):
        with suppress(TypeError, AttributeError):
            call(None)
            print(f"{i}: took None")


def main():
    assert {name for name in vars(ksm.Machine) if not name.startswith("_")} == set(MACHINE) | set(HARMLESS)
    assert {name for name in vars(ksm.Process) if not name.startswith("_")} == set(PROCESS) | set(HARMLESS_PROCESS)
    assert {name for name in vars(ksm.Ksm) if not name.startswith("_")} == set(KSM)
    assert {name for name in vars(Trace) if not name.startswith("_")} == set(TRACE)
    for part in (never_made, being_made, made_by_its_argument, closed_by_its_argument, not_any_more, copies, nones):
        part()


if __name__ == "__main__":
    main()
