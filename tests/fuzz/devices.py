# SPDX-License-Identifier: GPL-2.0-only
"""The actions on a machine: KSM's files, swap, frames, views, recordings; and actions that change nothing."""

from __future__ import annotations

import errno
import gc
from typing import Any

from fuzz import odd as odds
from fuzz.images import Images
from fuzz.shadow import MASK, PAGE
from fuzz.world import Finding, Outcome, show

EAGAIN, EBUSY, EINVAL, ENOMEM, ENXIO, ERANGE = errno.EAGAIN, errno.EBUSY, errno.EINVAL, errno.ENOMEM, errno.ENXIO, errno.ERANGE
COUNTS = ("ksm_rmap_items", "ksm_zero_pages", "ksm_merging_pages", "ksm_process_profit")
BOOLS = ("use_zero_pages", "smart_scan")
SETTINGS = ("plain", "transparent_hugepage", "memory", "nodes", "clock", "era")


class Devices(Images):
    def tell(self, label: str, outcome: Outcome, errnos: set[int], *others: type[Exception]) -> bool:
        """Whether a call succeeded. These errors are legal, and ValueError on a closed machine; any other is a Finding."""
        if not isinstance(outcome.error, others or ()) and not self.gone(label, outcome, False):
            self.legal(label, outcome, errnos)
        return outcome.error is None

    # KSM

    def do_scan(self, passes: int | None, pages: int | None) -> None:
        outcome = self.call("m.ksm.scan", self.machine.ksm.scan, passes, pages=pages)
        self.tell("scan", outcome, {ENOMEM} if self.common.short or not self.solo else set())

    def do_knob(self, name: str, value: Any) -> None:
        """Write a value to a file of sysfs, which may make sense there or not."""
        if name == "run" and str(value).strip().lstrip("+0") == "1" and not self.config["ksmd"]:
            return
        outcome = self.call(f"m.ksm.__setattr__({name!r}, ...)", lambda given: setattr(self.machine.ksm, name, given), value)
        odd: tuple[type[Exception], ...] = (TypeError,) if not isinstance(value, (int, str, bytes)) else ()
        if isinstance(value, str):
            odd += (UnicodeEncodeError,)
        done = self.tell(
            f"m.ksm.{name} = {show(value)}",
            outcome,
            {EINVAL, EBUSY, ERANGE, ENOMEM} | ({EAGAIN} if "clone" in self.common.refused else set()),
            AttributeError,
            odds.OddError,
            *odd,
        )
        if not done or not self.solo:
            return
        there = getattr(self.machine.ksm, name)
        if isinstance(there, int) and name not in BOOLS and name != "advisor_mode":
            wanted = int(value.split("\0")[0].strip() if isinstance(value, str) else value)
            wanted &= 0xFFFFFFFF if name == "advisor_max_cpu" else ~0
            # pages_to_scan is the advisor's to choose.
            if there != wanted and name != "pages_to_scan":
                raise Finding("sysfs", f"{name} is {there} after {show(value)} was written")
        if name == "merge_across_nodes":
            self.config["across"] = bool(there)

    def do_batch_of_files(self) -> None:
        """Read all files and counters."""
        k = self.machine.ksm
        repr(k)
        for label, function in (("names", k.names), ("attributes", k.attributes), ("dir", lambda: dir(k)),
                                ("show", lambda: k.show("run"))):  # fmt: skip
            self.tell(f"m.ksm.{label}", self.call(f"m.ksm.{label}", function), set())
        outcome = self.call("m.ksm.show", k.show, "nothing")
        if not self.closed and not isinstance(outcome.error, KeyError):
            raise Finding("sysfs", f"a file that is not there: {outcome.name}")

    def do_trace(self, what: str, number: Any = None) -> None:
        trace = self.machine.ksm.trace
        if what == "start":
            outcome = self.call("m.ksm.trace.start", trace.start, *([] if number is None else [number]))
            self.tell("trace.start", outcome, set(), ValueError, TypeError, odds.OddError, MemoryError)
        elif what == "stop":
            self.tell("trace.stop", self.call("m.ksm.trace.stop", trace.stop), set())
        else:
            outcome = self.call("m.ksm.trace.read", trace.read, number)
            if self.tell("trace.read", outcome, set(), TypeError, odds.OddError):
                [*map(str, outcome.value), len(trace), trace.lost, trace.capacity, trace.enabled]

    def do_record(self, what: str, steps: int = 100) -> None:
        if what == "start":
            outcome = self.call("r = m.record", self.machine.record, steps)
            if self.tell("record", outcome, {EBUSY}, ValueError):
                self.recording = outcome.value
        elif self.recording is not None:
            recording = self.recording
            outcome = self.call(f"r.{what}", {"note": lambda: recording.note("note"), "stop": recording.stop, "data": recording.data}[what])
            self.tell(f"recording.{what}", outcome, set(), ValueError, MemoryError)
            if what == "stop" or self.closed:
                self.recording = None

    # Swap

    def do_swap_out(self, who: int, place: list[Any], length: int, odd: Any = None) -> None:
        subject = self.subject(who)
        addr = self.place(subject.space, place)
        if odd is not None and odd[1][0] not in ("raises", "none", "object"):
            odd = None  # beyond() checks the sum of the numbers as they were given
        self.ask(f"{subject.label}.swap_out", subject.process.swap_out, [addr], "u", set(), then=(length,), odd=odd,
                 gone=subject.space is None, others=self.beyond(addr, length))  # fmt: skip

    def do_swapon(self, size: Any) -> None:
        outcome = self.call("m.swapon", self.machine.swapon, size)
        if self.tell("swapon", outcome, {EBUSY, ENOMEM, EINVAL}, ValueError, TypeError, odds.OddError):
            if self.swap and self.solo:
                raise Finding("swap", "a second swap area")
            self.swap = True
            return
        legal = {"EBUSY" if self.swap else "success", *(["ENOMEM"] if "swapon" in self.common.refused else [])}
        valid = isinstance(size, int) and size % PAGE == 0 and PAGE <= size < 1 << 30
        if valid and self.solo and not self.closed and outcome.name not in legal:
            raise Finding("swap", f"swapon({show(size)}): {outcome.name}")

    def do_swapoff(self) -> None:
        outcome = self.call("m.swapoff", self.machine.swapoff)
        if self.tell("swapoff", outcome, {EINVAL, ENOMEM} | ({errno.EIO} if self.common.poisoned else set())):
            self.swap = False
        elif self.solo and not self.closed:
            late = outcome.errno == ENOMEM and not self.scarce() and not self.common.poisoned
            if (outcome.errno == EINVAL) == self.swap or late:
                raise Finding("swap", f"swapoff: {outcome.name}")

    # Frames

    def do_move_pages(self, who: int, place: list[Any], length: int, node: int) -> None:
        subject = self.subject(who)
        addr = self.place(subject.space, place)
        node %= self.config["machine"]["nodes"]
        asked = self.ask(f"{subject.label}.move_pages", subject.process.move_pages, [addr], "u", set(), gone=subject.space is None,
                         then=(length, node), others=self.beyond(addr, length))  # fmt: skip
        if asked is not None and asked[0].error is None:
            self.look_at_nodes(asked[0].value, node)

    def look_at_nodes(self, answers: list[int], node: int) -> None:
        """A page is on the node that was asked for, or not moved for a reason. Behind one that stayed, pages may be anywhere."""
        legal = {node, *(-each for each in (errno.ENOENT, errno.EFAULT, EBUSY, EAGAIN, ENOMEM))}
        for answer in answers:
            if answer not in legal:
                raise Finding("move_pages", f"answers {answer}")
            if answer in (-EBUSY, -EAGAIN, -ENOMEM) and self.config["machine"]["era"] != "2.6.38":
                legal |= set(range(self.config["machine"]["nodes"]))

    def do_migrate(self, who: int, place: list[Any], node: int | None, odd: Any = None) -> None:
        if self.closed:
            return
        pfn = self.pfn(who, place)
        if node is not None:
            node %= self.config["machine"]["nodes"]
        self.ask("m.migrate", self.machine.migrate, [pfn], "u", {EINVAL, EBUSY, EAGAIN, ENOMEM}, odd=odd, then=(node,))

    def do_offline(self, block: int, blocks: int, who: int | None = None, place: list[Any] | None = None) -> None:
        """Take memory offline, or the image that this page is a part of."""
        start = block * 512 if who is None or place is None or self.closed else self.pfn(who, place) & ~511
        self.tell("offline", self.call("m.offline", self.machine.offline, start, blocks), {EBUSY, EINVAL}, ValueError)

    def do_online(self, block: int, blocks: int) -> None:
        self.tell("online", self.call("m.online", self.machine.online, block * 512, blocks), {EINVAL}, ValueError)

    def do_pin(self, who: int, place: list[Any]) -> None:
        """Hold a reference on a page for a while, so that it can neither be merged, nor moved, nor written to swap."""
        if self.pins and (len(self.pins) > 3 or not self.closed):
            self.unpin()
        if not self.closed:
            pfn = self.pfn(who, place)
            if self.tell("_get_page", self.call("m._get_page", self.machine._get_page, pfn), {EBUSY}):
                self.pins.append(pfn)

    def do_memory_failure(self, who: int, place: list[Any], odd: Any = None) -> None:
        if self.closed:
            return
        pfn = self.pfn(who, place)
        asked = self.ask("m.memory_failure", self.machine.memory_failure, [pfn], "u", {EBUSY, ENXIO, EINVAL}, odd=odd)
        if asked is None:
            return
        error = asked[0].error
        if isinstance(error, OSError) and error.errno == EBUSY and self.config["machine"]["era"] not in ("7.3", "6.12"):
            self.common.poisoned = True  # until 6.1, the frame of a merged page is marked all the same
        if error is not None:
            return
        self.common.poisoned = True
        named = [process.pid for process, _addr in asked[0].value if process is not None]
        if len(set(named)) < len(named):
            raise Finding("failure", f"memory_failure() names a process twice: {asked[0].value}")

    def do_fail(self, what: str, nth: int, times: int) -> None:
        outcome = self.call("m.fail", self.machine.fail, what, nth, times)
        if self.tell("fail", outcome, set(), ValueError, TypeError):
            self.common.short = True

    def do_drain(self, what: str) -> None:
        self.tell(what, self.call(f"m.{what}", getattr(self.machine, what)), set())

    # The machine itself

    def do_advance(self, seconds: Any, ksmd: Any) -> None:
        outcome = self.call("m.advance", self.machine.advance, seconds, ksmd=ksmd)
        if self.tell("advance", outcome, set(), ValueError, TypeError, odds.OddError):
            self.clock += seconds
        elif self.closed:
            return
        now = self.machine.time()
        if self.config["machine"]["clock"] == "manual" and self.solo and abs(now - self.clock) > 1e-3 + self.clock * 1e-9:
            raise Finding("clock", f"time() is {now} after {self.clock} seconds")

    def do_hugepage_mode(self, mode: Any) -> None:
        valid = mode in ("never", "madvise", "always")
        outcome = self.call("m.transparent_hugepage = ", lambda given: setattr(self.machine, "transparent_hugepage", given), mode)
        if self.tell("transparent_hugepage", outcome, set(), *([] if valid else [ValueError, TypeError])) and not valid:
            raise Finding("argument", f"transparent_hugepage = {mode!r}")

    def do_view(self, release: bool) -> None:
        if release:
            while self.views:
                self.views.pop().release()
            return
        outcome = self.call("view = memoryview", memoryview, self.machine)
        if self.tell("memoryview", outcome, set()):
            self.views.append(outcome.value)
            if not outcome.value.readonly or outcome.value.nbytes % PAGE:
                raise Finding("view", repr(outcome.value))

    def do_frame(self, who: int, place: list[Any], odd: Any = None) -> None:
        """A view of one frame, which holds its page."""
        if self.closed:
            return
        pfn = self.pfn(who, place)
        asked = self.ask("view = m.frame", self.machine.frame, [pfn], "u", {EINVAL, EBUSY}, odd=odd)
        if asked is None or asked[0].error is not None:
            return
        frame, (pfn,) = asked[0].value, asked[1]
        if not frame.readonly or frame.nbytes != PAGE:
            raise Finding("view", repr(frame))
        with memoryview(self.machine) as view:
            if self.still and pfn * PAGE < view.nbytes and frame != view[pfn * PAGE : (pfn + 1) * PAGE]:
                raise Finding("view", f"frame {pfn} is not what the memory has there")
        self.views.append(frame)
        if len(self.views) > 5:
            self.views.pop(0).release()

    def do_close_with_view(self) -> None:
        """The machine cannot be closed while there is a view of it."""
        if self.closed:
            return
        with memoryview(self.machine):
            outcome = self.call("m.close", self.machine.close)
        if not isinstance(outcome.error, BufferError):
            raise Finding("view", f"close() while a view exists: {outcome.name}")

    def do_close(self) -> None:
        while self.views:
            self.views.pop().release()
        self.close()

    # Looking

    def do_look(self, who: int, place: list[Any], length: int) -> None:
        """Make every call that changes nothing."""
        subject = self.subject(who)
        process, addr = subject.process, self.place(subject.space, place)
        for name in ("maps", "smaps", "rss", "swap_entries", "ksm_stat"):
            outcome = self.call(f"{subject.label}.{name}", getattr(process, name))
            if not self.gone(name, outcome, subject.space is None):
                self.legal(name, outcome, set())
        gone, beyond = subject.space is None and length > 0, (ValueError,) if length > 1 << 47 else ()
        asked = self.ask(f"{subject.label}.page_table", process.page_table, [addr, length], "uu", set(), gone=gone, others=beyond)
        if asked is not None and asked[0].error is None and len(asked[0].value) != (asked[1][1] + MASK) // PAGE:
            raise Finding("page_table", f"{len(asked[0].value)} words for {asked[1][1]} bytes")
        for name in ("vmstat", "slabinfo", "swap_pages", "total_pages", "free_pages", "time"):
            self.tell(name, self.call(f"m.{name}", getattr(self.machine, name)), set())
        for owner, names in ((self.machine, SETTINGS), (process, ("node", "mm_id", *COUNTS))):
            for name in names:
                outcome = self.call(f"getattr {name}", getattr, owner, name)
                if self.gone(name, outcome, owner is process and subject.space is None):
                    continue
                modern = self.config["machine"]["era"] in ("7.3", "6.12")
                if modern or not (isinstance(outcome.error, AttributeError) and name.startswith("ksm_")):
                    self.legal(name, outcome, set())
        [repr(self.machine), repr(process), process.alive, process.pid, process.name, self.machine.closed]

    def do_check(self) -> None:
        self.verify()

    def do_compare(self) -> None:
        self.compare()

    def do_collect(self) -> None:
        gc.collect()
