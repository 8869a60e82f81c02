# SPDX-License-Identifier: GPL-2.0-only
"""What needs no shadow: anything at all on processes that nobody keeps account of, garbage, and fork of the interpreter."""

from __future__ import annotations

import contextlib
import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any

import ksm
from fuzz import odd as odds
from fuzz.devices import Devices
from fuzz.shadow import PAGE
from fuzz.world import Closed, Common, Finding, Outcome

ERRNOS = {errno.EINVAL, errno.ENOMEM, errno.EFAULT, errno.EEXIST, errno.EAGAIN, errno.EBUSY, errno.ESRCH, errno.EPERM, errno.ENXIO}
METHODS = ("mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "prctl", "fork", "exec", "exit", "write", "force", "read", "peek", "touch",
           "update", "swap_out", "move_pages", "page_table", "maps", "smaps", "ksm_stat", "migrate", "memory_failure", "offline", "online")
PATIENCE = 20.0  # seconds for a child of the interpreter


class Leave(BaseException):
    """This is a child of the interpreter's, which is to end as every program does."""


class Player(Devices):
    def run(self, actions: list[Any]) -> None:
        every = self.config["every"]
        for number, (name, args) in enumerate(actions):
            self.now = [name, args]
            Common.actions += 1
            getattr(self, "do_" + name)(**args)
            if self.solo and (number + 1) % every == 0:
                self.verify()

    # Processes without a shadow

    def stray(self, number: int) -> ksm.Process | None:
        strays = self.common.strays
        with contextlib.suppress(OSError, IndexError):
            if len(strays) < 3:
                strays.append(self.machine.spawn(node=number % self.config["machine"]["nodes"]))
            if number % 16 == 0 or len(strays) > 6:
                strays.pop(0).exit()
        strays = list(strays)
        return strays[number % len(strays)] if strays else None

    def do_stray(self, who: int, method: str, args: list[int], odd: list[Any] | None) -> None:
        """A method with whatever arguments. It may succeed, or say what is wrong."""
        if self.closed or (method == "memory_failure" and "memory-failure" in self.without):
            return
        process, machine = self.stray(who), self.machine
        if process is None:
            return
        given: list[Any] = list(args)
        if odd is not None and odd[0] < len(given):
            given[odd[0]] = odds.wild(odd[1], given[odd[0]], self.nested)
        if method == "memory_failure":
            self.common.poisoned = True
        functions: dict[str, Any] = {
            "force": lambda addr, data: process.write(addr, data, force=True), "peek": lambda addr, length: process.read(addr, length, force=True),
            "write": lambda addr, data: process.write(addr, data), "fork": lambda name: self.common.strays.append(process.fork(name)),
        }  # fmt: skip
        if method in ("write", "force", "update"):
            given[1:] = [odds.content(args[1] % 9, 1 + args[1] % 3)]
        elif method in ("maps", "smaps", "ksm_stat", "exit"):
            given = []
        elif method in ("fork", "exec"):
            given = ["stray"]
        function = functions.get(method) or getattr(process, method, None) or getattr(machine, method)
        outcome = self.call(f"stray{who}.{method}", function, *given)
        self.legal_stray(method, outcome)

    def legal_stray(self, method: str, outcome: Outcome) -> None:
        error = outcome.error
        legal = error is None or outcome.errno in ERRNOS or isinstance(error, (ValueError, TypeError, MemoryError, odds.OddError))
        if not legal:
            raise Finding("error", f"{method} of a stray process: {outcome.name} {error}")

    def do_litter(self, number: int) -> None:
        """Garbage in a cycle, which calls the machine when it is collected: within whatever then makes an object."""
        player = self

        class Garbage:
            def __del__(self) -> None:
                player.nested(["look"])
                player.nested(["spawn"])

        gc.set_threshold(1 + number % 7, 2, 2)
        for _ in range(3):
            garbage: Any = Garbage()
            garbage.itself = garbage

    def do_odd_object(self, what: str) -> None:
        """Objects that nobody would make, and attributes that nobody would set."""
        process, machine = self.subject(0).process, self.machine
        functions: dict[str, Any] = {
            "process": lambda: ksm.Process(), "process of": lambda: ksm.Process(machine), "type": lambda: type(process).__new__(type(process)),
            "ksm": lambda: ksm.Ksm(None), "machine.ksm": lambda: setattr(machine, "ksm", 1), "machine.x": lambda: setattr(machine, "x", 1),
            "pid": lambda: setattr(process, "pid", 1), "name": lambda: setattr(process, "name", 5), "del name": lambda: delattr(process, "name"),
            "ksm.x": lambda: setattr(machine.ksm, "x", 1), "ksm.pages_shared": lambda: setattr(machine.ksm, "pages_shared", 1),
            "del ksm.run": lambda: delattr(machine.ksm, "run"), "ksm.run()": lambda: machine.ksm.run(), "store": lambda: machine.ksm.store("run", 1),
            "store None": lambda: machine.ksm.store(None, "1"), "show None": lambda: machine.ksm.show(None), "copy": lambda: __import__("copy").copy(machine),
            "deepcopy": lambda: __import__("copy").deepcopy(process), "pickle": lambda: __import__("pickle").dumps(machine),
            "compare": lambda: machine < machine, "hash": lambda: hash(process), "len": lambda: len(machine), "index": lambda: memoryview(machine)[1 << 62],
            "write view": lambda: memoryview(machine).__setitem__(0, 1), "trace": lambda: type(machine.ksm.trace)(None), "init": lambda: process.__init__(),
            "fail list": lambda: machine.fail([], 1), "spawn node": lambda: machine.spawn(node=1 << 40), "spawn none": lambda: machine.spawn(node=None),
            "raising mode": lambda: setattr(machine, "transparent_hugepage", odds.Raises()), "get_page": lambda: machine._get_page(1 << 50),
        }  # fmt: skip
        if what not in functions:
            return
        outcome = self.call(what, functions[what])
        if outcome.error is not None and not isinstance(outcome.error, (TypeError, ValueError, AttributeError, KeyError, IndexError, odds.OddError)):
            self.legal(what, outcome, {errno.EINVAL})

    # Fork of the interpreter

    def do_os_fork(self, how: str, then: str) -> None:
        """A child of the interpreter, which uses the machine, closes it, lets go of it or just leaves: it has to come to its end."""
        self.note(f"# os.fork by {how}, then {then}")
        if how == "preexec":
            child = subprocess.Popen([sys.executable, "-S", "-c", ""], preexec_fn=lambda: self.in_child(then), stderr=subprocess.DEVNULL)  # noqa: PLW1509
            self.wait(child.pid, f"preexec_fn, {then}", lambda: child.poll())
            return
        if how == "multiprocessing":
            process = multiprocessing.get_context("fork").Process(target=self.in_child, args=(then,))
            process.start()
            assert process.pid is not None
            self.wait(process.pid, f"multiprocessing, {then}", lambda: process.exitcode)
            return
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                self.in_child(then)
            except Finding as finding:
                sys.stderr.write(f"in a child of the interpreter's: {finding}\n")
                code = 9
            if then == "leave":
                raise Leave
            os._exit(code)

        def ended() -> int | None:
            gone, status = os.waitpid(pid, os.WNOHANG)
            return os.waitstatus_to_exitcode(status) if gone else None

        self.wait(pid, f"os.fork(), {then}", ended)

    def wait(self, pid: int, what: str, ended: Any) -> None:
        until = time.monotonic() + PATIENCE
        code = ended()
        while code is None and time.monotonic() < until:
            time.sleep(0.002)
            code = ended()
        if code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR2)  # says where it is
                time.sleep(0.2)
                os.kill(pid, signal.SIGKILL)
            raise Finding("stuck", f"a child of the interpreter does not end: {what}")
        if code != 0:
            raise Finding("child", f"a child of the interpreter ended with {code}: {what}")

    def in_child(self, then: str) -> None:
        self.log = None
        machine = self.machine
        if then in ("use", "use and close"):
            process = self.subjects[0].process if self.subjects else None
            uses: list[Any] = [machine.vmstat, machine.spawn, machine.slabinfo, lambda: machine.ksm.pages_shared, machine.swapoff,
                               lambda: machine.ksm.store("run", "2"), lambda: machine.ksm.scan(), machine.check]  # fmt: skip
            if process is not None:
                uses += [process.maps, lambda: process.mmap(PAGE), process.exec, process.exit]
            for use in uses:
                outcome = self.call("use", use)
                if not isinstance(outcome.error, (RuntimeError, ValueError, OSError)):
                    raise Finding("child", f"the machine can be used there: {outcome.name} {outcome.error or outcome.value}")
        for view in self.views:
            view.release()
        if then in ("close", "use and close"):
            machine.close()
        if then == "collect":
            self.subjects, self.views, self.recording = [], [], None
            self.common.strays = []
            del machine, self.machine
            gc.collect()


__all__ = ["Closed", "Leave", "Player"]
