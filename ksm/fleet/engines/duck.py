# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""DuckDB inside this process: one step after the other, each with all threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ksm.fleet.engines.steps import Answer, Asked, Job, Options, Progress, Room, ask, spread
from ksm.host.memory import available_memory

SHARE = 2  # of the memory that is available, one in so many is taken if nobody says


class Duck:
    def __init__(self, options: Options, folder: str) -> None:
        self.room = Room(options.memory or available_memory() // SHARE, options.threads, folder)

    def memory(self) -> int:
        assert self.room.memory is not None
        return self.room.memory

    def at_once(self) -> int:
        return 1

    def spread(self, jobs: Sequence[Job], work: str, progress: Progress) -> list[str]:
        folders = []
        for number, job in enumerate(jobs):
            progress("reading fingerprints", number, len(jobs))
            folders.append(spread(job, self.room, work))
        return folders

    def ask(self, parts: int, asked: Asked, work: str, progress: Progress) -> Iterator[Answer]:
        for part in range(parts):
            progress("comparing", part, parts)
            yield ask(part, asked, self.room, work)

    def close(self) -> None:
        pass
