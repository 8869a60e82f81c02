# SPDX-License-Identifier: GPL-2.0-only
"""Fork of the interpreter while the machine is open: the child may close it, let go of it and leave, and must not use it."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any

from fuzz.shadow import PAGE
from fuzz.strange import Strange
from fuzz.world import Finding

PATIENCE = 20.0  # seconds for a child of the interpreter


class Leave(BaseException):
    """This is a child of the interpreter's, which is to end as every program does."""


class Forks(Strange):
    def do_os_fork(self, how: str, then: str) -> None:
        """A child of the interpreter, which uses the machine, closes it, lets go of it or just leaves: it has to come to its end."""
        self.note(f"# os.fork by {how}, then {then}")
        if how == "preexec":
            child = subprocess.Popen([sys.executable, "-S", "-c", ""], preexec_fn=lambda: self.in_child(then), stderr=subprocess.DEVNULL)
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
                uses += [process.maps, lambda: process.mmap(PAGE), process.exec]
                if not machine.closed:
                    uses.append(process.exit)  # which a closed machine has seen to
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
