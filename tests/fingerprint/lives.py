# SPDX-License-Identifier: GPL-2.0-only
"""The same life on a machine of bytes and on one of fingerprints.

A life is drawn from its seed alone, so two machines live the same. It knows what each page has to hold, and takes down after every pass
all that KSM counts.
"""

import errno
import random
from collections.abc import Iterator
from typing import Any, Literal

import ksm
from ksm.estimate.savings import Tally
from ksm.fingerprint.frames import frames_of

PAGE = ksm.PAGE_SIZE
Era = Literal["7.3", "6.12", "6.1", "2.6.38"]
ERAS: tuple[Era, ...] = ("6.12", "6.1", "2.6.38")  # of the fast tests
EVERY_ERA: tuple[Era, ...] = ("7.3", *ERAS)
Observation = dict[str, Any]

# Contents that many pages have: zeros, one byte repeated, pages that differ in one bit, text, and noise
COMMON = [bytes(PAGE), b"\1" * PAGE, b"\xff" * PAGE, b"\1" + bytes(PAGE - 1), bytes(PAGE - 1) + b"\1", b"\2" + bytes(PAGE - 1),
          *(random.Random(i).randbytes(8) * (PAGE // 8) for i in range(4)), *(random.Random(i).randbytes(PAGE) for i in range(4))]

# STEADY: memory changes between passes, and each merged page keeps a process that has it. LOOSE: all of a page's processes may write to it.
# Then its stable node is stale. A search that meets a stale node drops it, and which nodes it meets depends on the shape of the trees.
# HUGE: as STEADY, with huge pages, which are split where a part of them is merged.
# BUSY: whatever makes stale nodes, and ksmd also stops within a pass, so that pages of the unstable trees change.
Kind = Literal["steady", "huge", "loose", "busy"]
WRITES = ("update", "update", "update", "rewrite", "rewrite", "touch", "spawn")
BUSY = ("exit", "exec", "swap_out", "migrate", "move_pages", "unmerge", "merge", "discard", "munmap", "some_pages")
ACTIONS: dict[Kind, tuple[str, ...]] = {"steady": (*WRITES, "fork"), "huge": (*WRITES, "fork"), "loose": WRITES,
                                        "busy": (*WRITES, *WRITES, "fork", *BUSY)}


class Life:
    """Processes with a mapping of as many pages each, on a machine with settings by the seed."""

    def __init__(self, pages: Literal["bytes", "fingerprints"], kind: Kind, seed: int, era: Era, *,
                 plain: bool | None = None, key: bytes | None = None) -> None:
        self.rng = rng = random.Random(seed)
        nodes = rng.choice([1, 1, 2])
        self.machine = ksm.Machine("32M", max_memory="32M", nodes=nodes, swap="4M" if kind == "busy" else None, clock="manual", era=era,
                                   pages=pages, plain=plain, key=key, transparent_hugepage="always" if kind == "huge" else "never")
        self.kind, self.key = kind, key
        self.pages = 1100 if kind == "huge" else 60
        self.nodes, self.era, self.jhash = nodes, era, era == "2.6.38"
        self.known: dict[ksm.Process, list[bytes]] = {}
        self.addr = 0x40000000
        self.seen: list[Observation] = []
        files = self.machine.ksm
        if era in ("7.3", "6.12"):
            files.smart_scan = rng.choice([0, 1])
        if era != "2.6.38":
            files.max_page_sharing = rng.choice([2, 3, 5, 17, 256])
            files.use_zero_pages = rng.choice([0, 1])
            files.stable_node_chains_prune_millisecs = rng.choice([0, 2000])
            files.merge_across_nodes = 1 if nodes == 1 else rng.choice([0, 1])
        for _ in range(rng.randrange(1, 4)):
            self.spawn()

    def content(self) -> bytes:
        kind = self.rng.randrange(20)
        return COMMON[kind] if kind < len(COMMON) else self.rng.randbytes(64) * (PAGE // 64)

    def process(self) -> ksm.Process:
        return self.rng.choice(list(self.known))

    def place(self) -> tuple[int, int]:
        """The number of a page, and of pages from there on."""
        first = self.rng.randrange(self.pages)
        return first, self.rng.randrange(1, min(20, self.pages - first) + 1)

    def live(self, passes: int) -> "Life":
        for _ in range(passes):
            for _ in range(self.rng.randrange(8)):
                getattr(self, self.rng.choice(ACTIONS[self.kind]))()
            self.machine.advance(1)
            self.scan()
        return self

    def scan(self, passes: int = 1) -> None:
        self.machine.ksm.scan(passes)
        assert self.machine.check() == []
        self.seen.append(self.observed())

    def observed(self) -> Observation:
        """All that KSM counts, and which pages share a frame."""
        tally = Tally(self.machine)
        names: dict[tuple[int, bool], int] = {}
        sharing = []
        stats = []
        for process in self.known:
            tally.next_source()
            words = process.page_table(self.addr, self.pages * PAGE)
            tally.add(words)
            # A frame and a place in the swap area may have the same number.
            sharing.append([(names.setdefault((word >> ksm.PAGE_FLAGS_SHIFT, bool(word & ksm.PAGE_SWAPPED)), len(names)),
                             word & (1 << ksm.PAGE_FLAGS_SHIFT) - 1) for word in words])
            stats.append(process.ksm_stat())
        return {**self.machine.ksm.attributes(), "ksm_stat": stats, "vmstat": self.machine.vmstat(), "slabinfo": self.machine.slabinfo(),
                "free_pages": self.machine.free_pages(), "savings": (tally.zero, tally.within, tally.across), "sharing": sharing}

    def wrong_pages(self) -> Iterator[tuple[int, int]]:
        """Pages in memory that do not hold what was last stored: (pid, number)."""
        for process, contents in self.known.items():
            for i, word in enumerate(process.page_table(self.addr, self.pages * PAGE)):
                if word & ksm.PAGE_PRESENT:
                    held = bytes(self.machine.frame(word >> ksm.PAGE_FLAGS_SHIFT))
                    wanted = contents[i] if len(held) == PAGE else frames_of(contents[i], jhash=self.jhash, key=self.key)[:len(held)]
                    if held != wanted:
                        yield process.pid, i

    def finish(self) -> None:
        """Let all exit, after which nothing may be left."""
        assert list(self.wrong_pages()) == []
        for process in self.known:
            process.madvise(self.addr, self.pages * PAGE, ksm.MADV_UNMERGEABLE)
            process.touch(self.addr, self.pages * PAGE, write=False)
        assert list(self.wrong_pages()) == []
        for process in self.known:
            process.exit()
        self.machine.ksm.scan(2)
        assert self.machine.check() == []
        assert (self.machine.ksm.pages_shared, self.machine.ksm.pages_sharing) == (0, 0)
        self.machine.close()

    # The actions

    def spawn(self) -> None:
        if len(self.known) < (3 if self.kind == "huge" else 5):
            process = self.machine.spawn(node=self.rng.randrange(self.nodes))
            process.mmap(self.pages * PAGE, addr=self.addr, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED)
            process.madvise(self.addr, self.pages * PAGE, ksm.MADV_MERGEABLE)
            self.known[process] = [bytes(PAGE)] * self.pages
            filled = self.rng.randrange(60)
            self.known[process][:filled] = [self.content() for _ in range(filled)]
            process.update(self.addr, b"".join(self.known[process][:filled]))

    def may_write(self, process: ksm.Process, page: int) -> bool:
        """In a steady life, the last process that has a merged page does not write to it."""
        word = process.page_table(self.addr + page * PAGE, PAGE)[0]
        if self.kind not in ("steady", "huge") or not word & ksm.PAGE_KSM:
            return True
        frames = [each >> ksm.PAGE_FLAGS_SHIFT for other in self.known for each in other.page_table(self.addr, self.pages * PAGE)]
        return frames.count(word >> ksm.PAGE_FLAGS_SHIFT) > 1

    def store(self, process: ksm.Process, page: int, content: bytes) -> None:
        if self.may_write(process, page):
            self.known[process][page] = content
            process.update(self.addr + page * PAGE, content)

    def update(self) -> None:
        process, (first, nr) = self.process(), self.place()
        for page in range(first, first + nr):
            self.store(process, page, self.content())

    def rewrite(self) -> None:
        """A page gets what another one has."""
        process, (page, _), (other, _) = self.process(), self.place(), self.place()
        self.store(process, page, self.known[process][other])

    def touch(self) -> None:
        process, (first, nr), write = self.process(), self.place(), self.rng.choice([False, True])
        for page in range(first, first + nr):
            if self.may_write(process, page):
                process.touch(self.addr + page * PAGE, write=write)

    def fork(self) -> None:
        if len(self.known) < (3 if self.kind == "huge" else 5):
            process = self.process()
            self.known[process.fork()] = list(self.known[process])

    def exit(self) -> None:
        if len(self.known) > 1:
            process = self.process()
            del self.known[process]
            process.exit()

    def exec(self) -> None:
        if len(self.known) > 1:
            process = self.process()
            del self.known[process]
            process.exec()

    def swap_out(self) -> None:
        process, (first, nr) = self.process(), self.place()
        process.swap_out(self.addr + first * PAGE, nr * PAGE)

    def migrate(self) -> None:
        process, (first, _) = self.process(), self.place()
        word = process.page_table(self.addr + first * PAGE, PAGE)[0]
        if word & ksm.PAGE_PRESENT:
            try:
                self.machine.migrate(word >> ksm.PAGE_FLAGS_SHIFT)
            except OSError as error:
                assert error.errno in (errno.EBUSY, errno.EAGAIN)

    def move_pages(self) -> None:
        process, (first, nr) = self.process(), self.place()
        process.move_pages(self.addr + first * PAGE, nr * PAGE, self.rng.randrange(self.nodes))

    def unmerge(self) -> None:
        process, (first, nr) = self.process(), self.place()
        process.madvise(self.addr + first * PAGE, nr * PAGE, ksm.MADV_UNMERGEABLE)

    def merge(self) -> None:
        self.process().madvise(self.addr, self.pages * PAGE, ksm.MADV_MERGEABLE)

    def discard(self) -> None:
        process, (first, nr) = self.process(), self.place()
        process.madvise(self.addr + first * PAGE, nr * PAGE, ksm.MADV_DONTNEED)
        self.known[process][first:first + nr] = [bytes(PAGE)] * nr

    def munmap(self) -> None:
        process, (first, nr) = self.process(), self.place()
        process.munmap(self.addr + first * PAGE, nr * PAGE)
        process.mmap(nr * PAGE, addr=self.addr + first * PAGE, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED)
        self.known[process][first:first + nr] = [bytes(PAGE)] * nr

    def some_pages(self) -> None:
        """ksmd stops within a pass."""
        self.machine.ksm.scan(pages=self.rng.randrange(1, 100))
