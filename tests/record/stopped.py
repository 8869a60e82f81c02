# SPDX-License-Identifier: GPL-2.0-only
"""A lesson run once more on a machine that is stopped at each of its steps, and looked at by another way than the recorder's."""

from __future__ import annotations

from typing import Any

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons import lesson
from ksm.testing.stops import account, stop_at_each_step


class Stopped:
    """A machine as a lesson sees it, whose recording keeps an account for each step."""

    def __init__(self, machine: ksm.Machine) -> None:
        self.machine = machine
        self.accounts: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)

    def look(self) -> None:
        self.accounts.append(account(self.machine))

    def record(self, *arguments: Any) -> Recording:
        recording = self.machine.record(*arguments)
        stop_at_each_step(self.machine, self.look)
        self.look()
        note = recording.note

        def noted(text: str) -> None:
            note(text)
            self.look()

        recording.note = noted  # type: ignore[method-assign]
        return recording


def accounts(key: str, era: Any) -> list[dict[str, Any]]:
    """What a machine has at each step of a lesson. See ksm.testing.stops.account()."""
    chosen = lesson(key)
    with ksm.Machine(**{"memory": "4M", "max_memory": "4M", "clock": "manual", "plain": True, **chosen.options}, era=era) as machine:
        stopped = Stopped(machine)
        chosen.run(stopped).stop()  # type: ignore[arg-type]
        return stopped.accounts
