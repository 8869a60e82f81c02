# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the processors of the computer that this runs on.
"""Pieces of memory, read and used by several threads at once."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ksm.host.memory import cgroup_folders, read_text
from ksm.sources.pieces import BUFFER, Piece, Wait

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
P = TypeVar("P", bound=Piece)
AHEAD = 4  # pieces in work, for each thread: a reader that is faster waits


class Cancelled(Exception):
    """Another piece has failed."""


def in_order(pieces: Iterable[P], work: Callable[[P, memoryview], T], threads: int) -> Iterator[T]:
    """What work(piece, buffer) gives for each piece, in the order of the pieces; `threads` of them are in work at the same time.

    The pieces are made in the thread of the caller, at most AHEAD for each thread in advance. The buffer is the thread's own. The first
    exception, of a piece or of its work, is raised once the work that was begun has ended.
    """
    if threads == 1:
        buffer = memoryview(bytearray(BUFFER))
        for piece in pieces:
            yield work(piece, buffer)
        return
    from concurrent.futures import Future, ThreadPoolExecutor  # nothing else needs it

    own = threading.local()
    stopped = threading.Event()
    threaded = False

    def task(piece: P, done: Future[T]) -> None:
        if done.done():
            return
        try:
            if stopped.is_set():
                raise Cancelled
            if not hasattr(own, "buffer"):
                own.buffer = memoryview(bytearray(BUFFER))
            done.set_result(work(piece, own.buffer))
        except BaseException as error:
            done.set_exception(error)

    def begin(piece: P) -> Future[T]:
        nonlocal threaded
        done: Future[T] = Future()
        try:
            pool.submit(task, piece, done)
            threaded = True
        except RuntimeError:
            # No further thread can be started (pids.max, ulimit -v). Those that there are do the piece, which is in their queue by now.
            if not threaded:
                task(piece, done)
        return done

    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, "ksm-read") as pool:
        try:
            for piece in pieces:
                if isinstance(piece, Wait):
                    while waiting:
                        yield waiting.popleft().result()
                    continue
                waiting.append(begin(piece))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stopped.set()


def usable_threads() -> int:
    """Processors that this process may use: its affinity mask, or what the quotas of its cgroups leave if that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, cgroup_processors()))


def cgroup_processors() -> int:
    """Processors that the cgroup and its ancestors leave, rounded up; many if there is no limit.

    The limit is cpu.max in version 2, and cpu.cfs_quota_us in version 1, where -1 is none.
    """
    processors = 1 << 16
    for controller in ("", "cpu"):
        for folder in cgroup_folders(controller):
            try:
                if controller:
                    quota, period = (read_text(folder, f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
                else:
                    quota, period = read_text(folder, "cpu.max").split()
                if quota not in ("max", "-1"):
                    processors = min(processors, -(-int(quota) // int(period)))
            except (OSError, ValueError, ZeroDivisionError):
                continue
    return processors
