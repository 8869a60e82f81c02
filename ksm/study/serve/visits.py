# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a machine behind a page.
"""A machine for each visitor: so many at most, and none for those who have gone."""

from __future__ import annotations

import ctypes
import secrets
import threading
import time
from contextlib import suppress
from typing import Any

from ksm.study.serve.actions import ActionError, World

MOST = 64  # visitors
IDLE = 900.0  # seconds
PATIENCE = 5.0  # seconds that a call waits for the visitor's call before it


def give_back() -> None:
    """Let the C library give back the memory that it does not use, where it can (glibc): threads leave it in many pieces."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class GoneError(Exception):
    """Nobody has this visit (any more). The text is a sentence for the visitor."""


class Visit:
    """A visitor's machine. One call at a time has it."""

    def __init__(self, era: Any) -> None:
        self.lock = threading.Lock()
        self.world: World | None = World(era)
        self.last = time.monotonic()

    def close(self) -> None:
        with self.lock:
            world, self.world = self.world, None
        if world is not None:
            world.close()


class Visits:
    """The visits by their ids, which cannot be guessed. `most` of them at once: the one that was idle for the longest ends for a new one.

    One that is idle for `idle` seconds ends with the next sweep().
    """

    def __init__(self, most: int = MOST, idle: float = IDLE) -> None:
        self.most, self.idle = most, idle
        self.lock = threading.Lock()
        self.visits: dict[str, Visit] = {}
        self.closed = False

    def begin(self, era: Any, visit: Any = None) -> dict[str, Any]:
        """A new machine, in place of the one that the visitor had: World.begun(), with the id of the visit."""
        new = Visit(era)
        name = secrets.token_urlsafe(24)
        with self.lock:
            ended = [self.visits.pop(visit)] if isinstance(visit, str) and visit in self.visits else []
            while len(self.visits) >= self.most:
                ended.append(self.visits.pop(min(self.visits, key=lambda each: self.visits[each].last)))
            if self.closed:
                ended.append(new)
            else:
                self.visits[name] = new
        for each in ended:
            each.close()
        return {"visit": name, **self.call(name, World.begun)}

    def do(self, visit: Any, action: Any) -> dict[str, Any]:
        """World.do() of the visitor's machine. ActionError, GoneError."""
        return self.call(visit, lambda world: world.do(action))

    def call(self, name: Any, what: Any) -> dict[str, Any]:
        with self.lock:
            visit = self.visits.get(name) if isinstance(name, str) else None
            if visit is not None:
                visit.last = time.monotonic()
        if visit is None:
            raise GoneError("This machine has been given up. Begin anew.")
        if not visit.lock.acquire(timeout=PATIENCE):
            raise ActionError("The machine is still busy with something else.")
        try:
            if visit.world is None:
                raise GoneError("This machine has been given up. Begin anew.")
            answer: dict[str, Any] = what(visit.world)
            return answer
        finally:
            visit.lock.release()

    def sweep(self) -> int:
        """End the visits that were idle for too long: how many."""
        before = time.monotonic() - self.idle
        with self.lock:
            ended = [self.visits.pop(name) for name, visit in list(self.visits.items()) if visit.last <= before]
        for each in ended:
            each.close()
        if ended:
            give_back()
        return len(ended)

    def close(self) -> None:
        """End all visits. There are no new ones."""
        with self.lock:
            self.closed = True
            ended = list(self.visits.values())
            self.visits.clear()
        for each in ended:
            each.close()
