# SPDX-License-Identifier: GPL-2.0-only
"""All actions together; and what needs no shadow: anything at all on processes that nobody keeps account of, and garbage."""

from __future__ import annotations

import contextlib
import errno
import gc
from typing import Any

import ksm
from fuzz import odd as odds
from fuzz.forks import Forks
from fuzz.world import Common, Finding, Outcome

ERRNOS = {errno.EINVAL, errno.ENOMEM, errno.EFAULT, errno.EEXIST, errno.EAGAIN, errno.EBUSY, errno.ESRCH, errno.EPERM, errno.ENXIO}
METHODS = ("mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "prctl", "fork", "exec", "exit", "write", "force", "read", "peek",
           "touch", "update", "swap_out", "move_pages", "page_table", "maps", "smaps", "ksm_stat", "migrate", "memory_failure", "offline",
           "online")  # fmt: skip


class Player(Forks):
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
            "force": lambda addr, data: process.write(addr, data, force=True),
            "peek": lambda addr, length: process.read(addr, length, force=True),
            "fork": lambda name: self.common.strays.append(process.fork(name)),
        }
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
        interrupted = outcome.errno == errno.EINTR and self.common.closing
        legal = error is None or outcome.errno in ERRNOS or isinstance(error, (ValueError, TypeError, MemoryError, odds.OddError))
        if not legal and not interrupted:
            raise Finding("error", f"{method} of a stray process: {outcome.name} {error}")

    def do_litter(self, number: int) -> None:
        """Garbage in a cycle, which calls the machine when it is collected: within whatever then makes an object."""
        if self.closed:
            return
        player = self

        class Garbage:
            def __del__(self) -> None:
                for what in ("look", "brk", "spawn"):
                    player.nested([what])

        gc.collect()
        gc.set_threshold(0)
        for _ in range(3):
            garbage: Any = Garbage()
            garbage.itself = garbage
        del garbage
        process = self.living(number).process
        calls = [process.maps, process.smaps, self.machine.vmstat, self.machine.ksm.attributes, self.machine.slabinfo]
        self.note(f"# garbage, collected after {number} objects more: {calls[number % 5].__name__}")
        gc.set_threshold(number, 2, 2)
        calls[number % 5]()
        gc.set_threshold(700, 10, 10)
