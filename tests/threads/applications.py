# SPDX-License-Identifier: GPL-2.0-only
"""What the stress programs have in common: threads with processes of their own, which make steps until the time is over."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

import ksm


class Application(threading.Thread):
    """A thread with a process of its own. Subclasses have step()."""

    def __init__(self, process: ksm.Process, seed: int, until: float) -> None:
        super().__init__()
        self.process = process
        self.random, self.until = random.Random(seed), until
        self.steps = 0
        self.errors: list[str] = []

    def run(self) -> None:
        try:
            while time.monotonic() < self.until:
                self.step()
                self.steps += 1
            self.check_all()
        except Exception as error:  # the thread's starter reports it
            self.errors.append(repr(error))
        self.leave()

    def step(self) -> None:
        raise NotImplementedError

    def check_all(self) -> None:
        """A last look at everything."""

    def leave(self) -> None:
        self.process.exit()


def run(applications: Sequence[Application], machine: ksm.Machine | None = None) -> tuple[list[str], int]:
    """Run them all, and beside them passes of a machine: their errors, and how many steps they made."""
    for application in applications:
        application.start()
    while machine is not None and any(application.is_alive() for application in applications):
        machine.ksm.scan(1)
    for application in applications:
        application.join()
    return [error for each in applications for error in each.errors], sum(each.steps for each in applications)
