# SPDX-License-Identifier: GPL-2.0-only
"""Objects that nobody would make, attributes that nobody would set, machines with odd arguments, and machines that are half made."""

from __future__ import annotations

import copy
import errno
import pickle
from collections.abc import Callable
from typing import Any, cast

import ksm
from fuzz import odd as odds
from fuzz.files import Files
from fuzz.shadow import PAGE
from fuzz.world import Finding, Outcome

PROCESS, KSM = cast(Any, ksm.Process), cast(Any, ksm.Ksm)  # to be called as their types forbid
Try = Callable[[Any, Any], object]
# Each of these is refused, or does no harm
OBJECTS: dict[str, Try] = {
    "a process by hand": lambda m, p: PROCESS(),
    "a process of a machine": lambda m, p: PROCESS(m),
    "__new__ of a process": lambda m, p: PROCESS.__new__(PROCESS),
    "__init__ of a process": lambda m, p: p.__init__(),
    "KSM of None": lambda m, p: KSM(None),
    "a trace of None": lambda m, p: type(m.ksm.trace)(None),
    "m.ksm = 1": lambda m, p: setattr(m, "ksm", 1),
    "m.new = 1": lambda m, p: setattr(m, "new", 1),
    "p.pid = 1": lambda m, p: setattr(p, "pid", 1),
    "p.name = 5": lambda m, p: setattr(p, "name", 5),
    "del p.name": lambda m, p: delattr(p, "name"),
    "m.ksm.new = 1": lambda m, p: setattr(m.ksm, "new", 1),
    "m.ksm.pages_shared = 1": lambda m, p: setattr(m.ksm, "pages_shared", 1),
    "del m.ksm.run": lambda m, p: delattr(m.ksm, "run"),
    "m.ksm.run()": lambda m, p: m.ksm.run(),
    "store a number": lambda m, p: m.ksm.store("run", 1),
    "store into None": lambda m, p: m.ksm.store(None, "1"),
    "show None": lambda m, p: m.ksm.show(None),
    "copy": lambda m, p: copy.copy(m),
    "deepcopy": lambda m, p: copy.deepcopy(p),
    "pickle": lambda m, p: pickle.dumps(m),
    "compare": lambda m, p: m < m,
    "hash": lambda m, p: hash(p),
    "len": lambda m, p: len(m),
    "beyond the view": lambda m, p: memoryview(m)[1 << 62],
    "write to the view": lambda m, p: memoryview(m).__setitem__(0, 1),
    "fail a list": lambda m, p: m.fail([], 1),
    "a node that is not there": lambda m, p: m.spawn(node=1 << 40),
    "no node": lambda m, p: m.spawn(node=None),
    "a mode that raises": lambda m, p: setattr(m, "transparent_hugepage", odds.Raises()),
    "a frame that is not there": lambda m, p: m._get_page(1 << 50),
    "two batches": lambda m, p: m.ksm.scan(1, pages=1),
    "a batch that is too large": lambda m, p: m.ksm.scan(pages=1 << 32),
    "a batch of another size": lambda m, p: m.ksm.scan(pages=odds.TwoFaced(1, 1 << 40)),
    "a ring of another size": lambda m, p: m.ksm.trace.start(odds.TwoFaced(1, (1 << 63) + 1)),
    "a batch that changes": lambda m, p: m.ksm.scan(pages=odds.Liar([1, 1 << 40])),
    "a ring that changes": lambda m, p: m.ksm.trace.start(odds.Liar([1, 1 << 40])),
    "a forced write of which nobody knows whether it is one": lambda m, p: p.write(p.mmap(PAGE), b"x", force=odds.Raises()),
    "a forced read of which nobody knows whether it is one": lambda m, p: p.read(p.mmap(PAGE), 1, force=odds.Raises()),
    "a touch of which nobody knows whether it writes": lambda m, p: p.touch(p.mmap(PAGE), write=odds.Raises()),
    "a plain machine perhaps": lambda m, p: ksm.Machine("1M", plain=cast(bool, odds.Raises())),
}
# What any number may be given as, too
NUMBERS: dict[str, Try] = {
    "pages of a batch": lambda m, p: m.ksm.scan(pages=odds.Index(1)),
    "passes": lambda m, p: m.ksm.scan(odds.Index(1)),
    "events": lambda m, p: m.ksm.trace.start(odds.Index(16)),
    "events to be read": lambda m, p: m.ksm.trace.read(odds.Index(16)),
    "sleep_millisecs": lambda m, p: setattr(m.ksm, "sleep_millisecs", odds.Index(1)),
    "nth": lambda m, p: m.fail("page", odds.Index(0), odds.Index(1)),
    "a node": lambda m, p: m.spawn(node=odds.Index(0)).exit(),
    "bytes": lambda m, p: ksm.Machine(odds.Index(1 << 20), max_memory=odds.Index(1 << 21), swap=odds.Index(4096)).close(),
    "nodes": lambda m, p: ksm.Machine("4M", nodes=odds.Index(2)).close(),
}
# Methods of a machine whose __init__() has not returned
METHODS: list[Callable[[Any], object]] = [
    lambda m: m.slabinfo(), lambda m: m.fail("page"), lambda m: m.check(), lambda m: m.plain, lambda m: m.close(), lambda m: m.ksm,
    lambda m: ksm.Ksm(m).scan(), lambda m: m.vmstat(), lambda m: m.spawn(), lambda m: m.free_pages(), lambda m: m.swapoff(),
    lambda m: m.migrate(5), lambda m: memoryview(m), lambda m: repr(m), lambda m: m.record(), lambda m: m.transparent_hugepage,
    lambda m: ksm.Ksm(m).trace.start(), lambda m: ksm.Ksm(m).names(), lambda m: m.offline(512, 512), lambda m: m.memory_failure(5),
    lambda m: m.soft_offline(5),
    lambda m: m.swapon("64K"), lambda m: m.__init__("1M"), lambda m: m.lru_add_drain_all(),
]  # fmt: skip


class Strange(Files):
    def do_odd_object(self, what: str) -> None:
        outcome = self.tried(what, OBJECTS[what])
        types = (TypeError, ValueError, AttributeError, KeyError, IndexError, MemoryError, odds.OddError)
        if outcome is not None and not isinstance(outcome.error, types):
            self.legal(what, outcome, {errno.EINVAL, errno.ENOMEM})

    def do_any_number(self, what: str) -> None:
        """An object with an __index__ is as good as a number."""
        outcome = self.tried(what, NUMBERS[what])
        if outcome is not None:
            self.tell(f"{what} as an object with an index", outcome, {errno.ENOMEM, errno.EBUSY})

    def tried(self, what: str, function: Try) -> Outcome | None:
        """On a process that is there for this alone."""
        made = self.call("p = m.spawn", self.machine.spawn)
        if made.error is not None:
            self.tell("spawn", made, {errno.ENOMEM})
            return None
        outcome = self.call(f"# {what}", function, self.machine, made.value)
        made.value.exit()
        return outcome

    def do_again(self, odd: list[Any] | None) -> None:
        """Make another machine, with one odd argument."""
        arguments: dict[str, Any] = {"memory": "1M", "max_memory": "4M"}
        if odd is not None:
            arguments[odd[0]] = odds.make(odd[1], 1 << 21, self.nested)[0] if isinstance(odd[1], list) else odd[1]
        outcome = self.call("ksm.Machine", ksm.Machine, **arguments)
        if outcome.error is None:
            outcome.value.spawn().touch(outcome.value.processes[1].mmap(PAGE))
            outcome.value.close()
        elif not isinstance(outcome.error, (ValueError, TypeError, odds.OddError)) and outcome.errno not in (errno.ENOMEM, errno.EINVAL):
            raise Finding("argument", f"Machine({arguments}): {outcome.name} {outcome.error}")

    def do_init_again(self) -> None:
        outcome = self.call("m.__init__", self.machine.__init__, "1M")  # type: ignore[misc]  # there is no subclass here
        if not isinstance(outcome.error, RuntimeError):
            raise Finding("argument", f"a machine that is made twice: {outcome.name}")

    def do_half_made(self, method: int, within: str) -> None:
        """Call a machine that is half made: before __init__(), within an argument of it, or after it has failed."""
        half = ksm.Machine.__new__(ksm.Machine)
        function = METHODS[method % len(METHODS)]
        if within:
            calls = odds.Calls(1 << 21, lambda: self.call("# within", function, half))
            self.call("half.__init__", half.__init__, **{within: calls})  # type: ignore[misc]  # nor here
        outcome = self.call("# half made", function, half)
        legal = (ValueError, RuntimeError, AttributeError, TypeError, OSError)
        if outcome.error is not None and not isinstance(outcome.error, legal):
            raise Finding("argument", f"a machine that is half made: {outcome.name} {outcome.error}")
        if isinstance(outcome.value, memoryview):
            outcome.value.release()
        half.close()

    def do_bad_name(self, what: str, who: int) -> None:
        """Give a name whose __str__() raises: no new process may be left behind, and no old one may lose anything."""
        subject = self.living(who)
        before = self.machine.slabinfo()["mm_struct"] if not self.closed else 0
        function = self.machine.spawn if what == "spawn" else getattr(subject.process, what)
        outcome = self.call(what, function, odds.Raises())
        self.tell(what, outcome, {errno.ENOMEM}, odds.OddError, TypeError)
        if self.closed:
            return
        if outcome.error is None:
            raise Finding("name", f"{what}() with a name that cannot be had")
        if what == "exec":
            self.compare_maps(subject)
        elif self.solo and self.machine.slabinfo()["mm_struct"] != before:
            raise Finding("name", f"{what}() with a name that cannot be had leaves an address space")
