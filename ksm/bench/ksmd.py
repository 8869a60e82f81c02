# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the kernel's side of `ksm bench`.
"""Measures the running kernel's ksmd over a process with the same memory, by ksmd's schedstat. Needs root."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ksm.bench.contents import fill, touch
from ksm.bench.ways import PASSES, Measured, check_merged, cpu, figures, halves
from ksm.constants import MADV_MERGEABLE, PAGE_SIZE
from ksm.host.files import open_to_write
from ksm.oracle.kernel import Ksmd, default_lock, sysfs_read, sysfs_write
from ksm.oracle.proc import kernel_thread, wait_asleep

PATIENCE = 1800.0  # seconds for one pass
PRUNE = 2000  # the kernel's default, and the port's
ITEM = 64  # bytes of an rmap_item, and of a stable node


class BenchKsmd(Ksmd):
    """ksmd, a pass at a time. The wait for ksmd sleeps between two looks: ksmd needs the memory's bandwidth."""

    def wait_asleep(self) -> None:
        wait_asleep("ksmd", self.stat, PATIENCE, 0.0005)


def serve(connection: Connection, name: str, pages: int) -> None:
    """The process with the memory: it does what it is told, until the other end closes the connection."""
    memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    fill(memory, name)
    memory.madvise(MADV_MERGEABLE)
    half = memoryview(memory)[: pages // 2 * PAGE_SIZE]
    answer: Any = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(answer)
            match connection.recv():
                case "fill", seed:
                    fill(memory, name, seed=seed)
                case ("touch",):
                    answer = cpu(lambda: touch(half))


class Kernel:
    """Holds the lock on KSM, and its settings, from the first to the last measurement."""

    def __init__(self, lock: Path | None = None) -> None:
        lock = lock or default_lock()
        with contextlib.ExitStack() as stack:
            fcntl.flock(stack.enter_context(open(open_to_write(lock), "wb")), fcntl.LOCK_EX)
            self.ksmd = BenchKsmd(lock.with_name(lock.name + ".saved"))
            stack.callback(self.ksmd.restore)
            self.schedstat = kernel_thread("ksmd") / "schedstat"
            self.stack = stack.pop_all()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def taken(self) -> int:
        """Nanoseconds that ksmd has run."""
        return int(self.schedstat.read_text().split()[0])

    def one_pass(self) -> int:
        before = self.taken()
        while not self.ksmd.batch():
            pass
        return self.taken() - before

    def run(self, name: str, pages: int) -> Measured:
        self.ksmd.start()
        self.ksmd.set("smart_scan", 0)
        self.ksmd.set("stable_node_chains_prune_millisecs", PRUNE)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = context.Process(target=serve, args=(theirs, name, pages), daemon=True)
        child.start()
        theirs.close()

        def ask(*what: Any) -> Any:
            ours.send(what)
            return ours.recv()

        try:
            ours.recv()
            took: list[float] = []
            for number in range(PASSES):
                if number and name == "volatile":
                    ask("fill", number)
                took.append(self.one_pass())
            shared, sharing = sysfs_read("pages_shared"), sysfs_read("pages_sharing")
            check_merged("ksmd", name, pages, shared + sharing)
            items = int(dict(line.split() for line in Path(f"/proc/{child.pid}/ksm_stat").read_text().splitlines())["ksm_rmap_items"])
            cow = ask("touch") - ask("touch")
            unmerge = cpu(lambda: sysfs_write("run", 2))
            self.ksmd.check_undisturbed(frozenset([child.pid or 0]))
            return figures(pages, took, halves(name, pages), ITEM * (items + shared), cow, unmerge)
        finally:
            ours.close()
            child.kill()
            child.join()
            child.close()
