# SPDX-License-Identifier: GPL-2.0-only
"""A machine, its processes with their shadows, and what has to be true of every call and at all times."""

from __future__ import annotations

import errno
import random
from typing import Any

import ksm
from fuzz import odd as odds
from fuzz.shadow import MASK, PAGE, ZEROS, Space, joined

# The slots of the window lie across a boundary of every level of page tables; the room for huge pages lies apart.
BASE = (1 << 39) - 24 * PAGE
WINDOW = 48
HUGE = 512 * PAGE
ROOM = (1 << 40) + 7 * HUGE
GONE = 1000
PEEK = 2048  # an area of so many pages is compared whole, a larger one only where it was written
RANGES = {"u": (0, 2**64 - 1), "i": (-(2**31), 2**31 - 1)}


class Finding(Exception):
    """Something is wrong: the kind of fault, and a text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


class Closed(Exception):
    """Another thread has closed the machine."""


class Outcome:
    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self.value, self.error = value, error

    @property
    def errno(self) -> int | None:
        return self.error.errno if isinstance(self.error, OSError) else None

    @property
    def name(self) -> str:
        """ENOMEM, ValueError, ... or "success"."""
        if self.errno is not None:
            return errno.errorcode.get(self.errno, str(self.errno))
        return type(self.error).__name__ if self.error is not None else "success"


class Subject:
    """A process, and what its memory has to be: no space once it has exited."""

    def __init__(self, process: ksm.Process, label: str, space: Space) -> None:
        self.process, self.label = process, label
        self.space: Space | None = space


class Common:
    """What the threads of a life have in common."""

    actions = 0  # of all lives of this interpreter

    def __init__(self) -> None:
        self.closing = False
        self.poisoned = False
        self.short = False  # an allocation was ordered to fail
        self.strays: list[ksm.Process] = []  # processes without a shadow, which any thread may call
        self.refused: set[str] = set()  # system calls that the system refuses


class World:
    """One thread's part of a life. `solo`: no other thread uses the machine, so every answer can be foretold."""

    def __init__(self, config: dict[str, Any], without: set[str], log: Any = None, *, machine: ksm.Machine | None = None,
                 common: Common | None = None, name: str = "", solo: bool = True) -> None:  # fmt: skip
        self.config, self.without, self.log, self.name, self.solo = config, without, log, name, solo
        self.common = common if common is not None else Common()
        self.subjects: list[Subject] = []
        self.made = 0
        self.still = solo  # no frame moves between two calls
        self.closed = False
        self.odd_errors: tuple[type[Exception], ...] = (TypeError, ValueError, odds.OddError)
        self.now: Any = None
        if machine is None:
            self.note(f"m = ksm.Machine({', '.join(f'{key}={value!r}' for key, value in config['machine'].items())})")
            machine = ksm.Machine(**config["machine"])
            for key, value in config["knobs"].items():
                if key in machine.ksm.names():
                    self.note(f"m.ksm.{key} = {value!r}")
                    setattr(machine.ksm, key, value)
        self.machine = machine
        self.swap = config["machine"]["swap"] is not None
        self.clock = 0.0
        self.recording: Any = None
        self.views: list[memoryview] = []
        self.pins: list[int] = []  # frames on which this world holds a reference
        self.images: list[tuple[int, int, Any]] = []  # that change on disk: address, length, file

    def note(self, line: str) -> None:
        if self.log is not None:
            self.log.write(f"{self.name}{line}\n")

    # Calls

    def call(self, label: str, function: Any, *args: Any, **kwargs: Any) -> Outcome:
        if self.log is not None:
            shown = [show(arg) for arg in args] + [f"{key}={show(arg)}" for key, arg in kwargs.items()]
            self.log.write(f"{self.name}{label}({', '.join(shown)})\n")
        try:
            return Outcome(function(*args, **kwargs))
        except Exception as error:
            outcome = Outcome(error=error.with_traceback(None))
        self.note(f"#   {outcome.name}")
        if self.common.closing and isinstance(outcome.error, ValueError) and "closed" in str(outcome.error) and not self.solo:
            raise Closed
        return outcome

    def ask(self, label: str, function: Any, args: list[Any], types: str, errnos: set[int], *, odd: list[Any] | None = None,
            gone: bool = False, first: tuple[Any, ...] = (), then: tuple[Any, ...] = (), others: tuple[type[Exception], ...] = (),
            **kwargs: Any) -> tuple[Outcome, list[Any]] | None:  # fmt: skip
        """Call with numbers, one of which may be replaced by an odd argument: the outcome, and the numbers that the arguments stood for.

        `first` and `then` are arguments before and after the numbers. None if the call was refused, as it had to be: because of the odd
        argument, because the process has exited (gone), or because the machine is closed.
        """
        asked, values = list(args), list(args)
        if odd is not None and odd[0] < len(args):
            asked[odd[0]], values[odd[0]] = odds.make(odd[1], args[odd[0]], self.nested)
        refused = any(
            value is None or not RANGES[kind][0] <= value <= RANGES[kind][1]
            for value, kind, arg in zip(values, types, args, strict=True)
            if kind in RANGES and arg is not None
        )
        outcome = self.call(label, function, *first, *asked, *then, **kwargs)
        if refused:
            if not isinstance(outcome.error, self.odd_errors):
                raise Finding("argument", f"{label}({', '.join(map(show, asked))}) with an argument that has to be refused: {outcome.name}")
            return None
        if others and isinstance(outcome.error, others):
            return outcome, values
        if self.gone(label, outcome, gone):
            return None
        self.legal(label, outcome, errnos, values)
        return outcome, values

    def gone(self, label: str, outcome: Outcome, exited: bool) -> bool:
        """Whether the machine is closed or the process has exited. The call must have been refused then."""
        if self.closed and outcome.errno == errno.EFAULT and label.endswith(".read"):
            return True  # a length that no address space has is refused before anything else is checked
        if self.closed and not (isinstance(outcome.error, ValueError) and "closed" in str(outcome.error)):
            raise Finding("closed", f"{label} on a closed machine: {outcome.name} {outcome.error or ''}")
        if not self.closed and exited and not isinstance(outcome.error, ProcessLookupError):
            raise Finding("exited", f"{label} of a process that has exited: {outcome.name} {outcome.error or ''}")
        return self.closed or exited

    def legal(self, label: str, outcome: Outcome, errnos: set[int], values: list[Any] | None = None) -> None:
        """The call must have succeeded, or raised one of these errors."""
        error = outcome.error
        if error is None or outcome.errno in errnos:
            return
        if outcome.errno == errno.EINTR and self.common.closing:
            return  # close() interrupts what listens to signals
        if isinstance(error, MemoryError) and any(isinstance(value, int) and value > 1 << 27 for value in values or ()):
            return
        raise Finding("error", f"{label}: {outcome.name}, which it does not say: {error}")

    def beyond(self, addr: int, length: int) -> tuple[type[Exception], ...]:
        """ValueError, if the range has a negative length or ends beyond all addresses."""
        return () if length >= 0 and 0 <= addr + length < 1 << 64 else (ValueError,)

    def nested(self, spec: list[Any]) -> None:
        """Called in the middle of another call: do something that changes no byte."""
        self.note(f"#   within: {spec}")
        machine = self.machine
        process = self.subjects[-1].process if self.subjects else None
        try:
            if spec[0] == "scan":
                machine.ksm.scan(pages=spec[1])
            elif spec[0] == "look" and process is not None:
                process.maps(), process.smaps(), process.page_table(BASE, WINDOW * PAGE), machine.vmstat(), machine.slabinfo()
            elif spec[0] == "swap" and process is not None:
                process.swap_out(BASE, WINDOW * PAGE)
            elif spec[0] == "spawn":
                machine.spawn().exit()
            elif spec[0] == "fork" and process is not None:
                process.fork().exit()
            elif spec[0] == "check" and self.solo:
                machine.check()
            elif spec[0] == "brk" and process is not None:
                process.brk()  # takes mmap_lock for writing
            elif spec[0] == "drain":
                machine.lru_add_drain_all()
                machine.drain_all_pages()
        except (OSError, ValueError, BufferError):
            pass

    # Who and where

    def subject(self, who: int) -> Subject:
        """A living process; for numbers from GONE on, one that has exited, if there is one."""
        exited = [subject for subject in self.subjects if subject.space is None]
        return exited[0] if who >= GONE and exited else self.living(who)

    def living(self, who: int) -> Subject:
        alive = [subject for subject in self.subjects if subject.space is not None]
        if not alive:
            alive = [self.spawn(0)]
        return alive[who % len(alive)]

    def adopt(self, process: ksm.Process, space: Space) -> Subject:
        self.made += 1
        subject = Subject(process, f"p{self.made}", space)
        # Now and then a process that has exited is called.
        exited = [each for each in self.subjects if each.space is None]
        if len(exited) > 1:
            self.subjects.remove(exited[0])
        self.subjects.append(subject)
        return subject

    def spawn(self, node: int) -> Subject:
        for _ in range(40):  # as often as an allocation may be ordered to fail
            outcome = self.call(f"p{self.made + 1} = m.spawn", self.machine.spawn, node=node % self.config["machine"]["nodes"])
            if outcome.error is None:
                return self.adopt(outcome.value, Space())
            if self.closed:
                raise Closed
            self.legal("spawn", outcome, {errno.ENOMEM})
        raise Closed  # without memory the life cannot go on

    def place(self, space: Space | None, place: list[Any]) -> int:
        rest: list[int]
        kind, *rest = place
        if kind == "near" and space is not None and space.areas and space.find(BASE + rest[0] % WINDOW * PAGE) is None:
            kind, rest = "map", [rest[0], rest[0] // 7]
        if kind == "map" and space is not None and space.areas:
            area = space.areas[rest[0] % len(space.areas)]
            return area.start + rest[1] % area.pages * PAGE
        if kind == "at":
            return rest[0]
        if kind == "image" and self.images:
            return self.images[-1][0]
        if kind == "room":
            return ROOM + rest[0] * HUGE
        return BASE + (rest[-1] if rest else 0) % WINDOW * PAGE

    def pfn(self, who: int, place: list[Any]) -> int:
        """The frame of a page, or 1."""
        subject = self.living(who)
        word = subject.process.page_table(self.place(subject.space, place) & (2**64 - PAGE), PAGE)[0]
        return word >> ksm.PAGE_FLAGS_SHIFT if word & ksm.PAGE_PRESENT else 1

    # Whether all is well

    def verify(self) -> None:
        if self.closed:
            return
        if self.solo:
            self.check()
        for subject in self.subjects:
            if subject.space is not None:
                self.compare_maps(subject)
        if self.still:
            self.peek()

    def check(self) -> None:
        self.note("m.check()")
        # Without two holes of the kernel's: see damage() of tests/mm/pages.py
        known = ["names anon_vma"] + (["to which no rmap_item"] if not self.config.get("across", True) else [])
        if self.pins:
            known.append("refcount")  # the machine cannot know of pins
        lines = [line for line in self.machine.check() if not any(words in line for words in known)]
        if lines:
            raise Finding("check", "; ".join(lines[:12]))

    def compare_maps(self, subject: Subject) -> None:
        assert subject.space is not None
        lines = joined((line.start, line.end, line.prot, line.shared) for line in subject.process.maps())
        if lines != subject.space.lines():
            raise Finding("maps", f"{subject.label} has {spell(lines)}, and not {spell(subject.space.lines())}")

    def peek(self) -> None:
        """Compare what is in memory with the shadow, without touching it."""
        view = memoryview(self.machine)
        try:
            for subject in self.subjects:
                for area, start, end in subject.space.runs(PEEK) if subject.space is not None else ():
                    assert subject.space is not None
                    words = subject.process.page_table(start, end - start)
                    for number, (word, wanted) in enumerate(zip(words, subject.space.inside(area, start, end), strict=True)):
                        at = (word >> ksm.PAGE_FLAGS_SHIFT) * PAGE
                        if wanted is None or word & ksm.PAGE_SWAPPED or at >= len(view):
                            continue
                        if word == 0:
                            if wanted is not ZEROS and area.shared is None:
                                raise Finding(
                                    "bytes", f"{subject.label}: the page at {start + number * PAGE:#x} is gone, and was {digest(wanted)}"
                                )
                        elif bytes(view[at : at + PAGE]) != wanted:
                            raise Finding("bytes", differ(subject.label, start + number * PAGE, bytes(view[at : at + PAGE]), wanted, word))
        finally:
            view.release()

    def compare(self) -> None:
        """Read everything, as a debugger would, and compare it with the shadow."""
        for subject in self.subjects:
            if subject.space is None or self.closed:
                continue
            for _area, start, end in subject.space.runs(PEEK):
                for addr in range(start, end, 16 * PAGE):
                    self.compare_range(subject, addr, min(end, addr + 16 * PAGE))

    def compare_range(self, subject: Subject, start: int, end: int) -> None:
        assert subject.space is not None
        outcome = self.call(f"{subject.label}.read", subject.process.read, start, end - start, force=True)
        if outcome.error is not None:
            self.legal("read of mapped memory", outcome, {errno.ENOMEM} | ({errno.EFAULT} if self.common.poisoned else set()))
            return
        for addr in range(start, end, PAGE):
            wanted, there = subject.space.page(addr), outcome.value[addr - start : addr - start + PAGE]
            if wanted is not None and there != wanted:
                raise Finding("bytes", differ(subject.label, addr, there, wanted))

    def finish(self) -> None:
        """End a life whose machine is open: compare all bytes, let all processes exit, and check that nothing is left."""
        if self.closed:
            return
        machine = self.machine
        self.call_off()
        self.verify()
        self.compare()
        self.check()
        self.subjects = []
        for process in list(machine.processes.values()):
            process.exit()
        self.note("for process in list(m.processes.values()): process.exit()")
        self.check()
        k = machine.ksm
        ends: list[tuple[str, Any, set[int]]] = [
            ("m.ksm.scan(2)", lambda: k.scan(2), set()), ("m.ksm.run = 0", lambda: k.store("run", "0"), set()),
            ("m.ksm.run = 2", lambda: k.store("run", "2"), set()), ("m.swapoff", machine.swapoff, {errno.EINVAL}),
            ("m.lru_add_drain_all", machine.lru_add_drain_all, set()),
        ]  # fmt: skip
        for label, function, errnos in ends:
            self.legal(label, self.call(label, function), errnos)
        self.check()
        # In 2011 a node whose page was gone stayed until a search came across it.
        late = {"ksm_stable_node"} if self.config["machine"]["era"] == "2.6.38" else set()
        left = {name: number for name, number in machine.slabinfo().items() if number and name not in late}
        if left:
            raise Finding("left", f"when all processes have exited there are {left}")
        lost = machine.total_pages() - 1 - machine.free_pages()
        if lost and not self.common.poisoned:
            raise Finding("left", f"{lost} frames are used when all processes have exited")

    def unpin(self) -> None:
        while self.pins and not self.closed:
            self.note(f"m._put_page({self.pins[-1]})")
            self.machine._put_page(self.pins.pop())

    def call_off(self) -> None:
        self.unpin()
        for what in ("page", *self.machine.slabinfo()):
            self.machine.fail(what, 0)
        self.common.short = False
        if self.recording is not None:
            self.recording.stop()
            self.recording = None
        for view in self.views:
            view.release()
        self.views = []

    def close(self) -> None:
        if not self.closed:
            self.note("m.close()")
            self.common.closing = not self.solo
            self.machine.close()
        self.closed = True


def show(arg: Any) -> str:
    """An argument as a program would write it."""
    if isinstance(arg, odds.Calls):
        return f"Calls({arg.value}, ...)"
    if isinstance(arg, odds.Index):
        return f"Index({arg.value})"
    if isinstance(arg, odds.Raises):
        return "Raises()"
    if isinstance(arg, odds.Liar):
        return f"Liar({arg.values})"
    if isinstance(arg, (odds.Unprintable, odds.Miscounting)):
        return f"{type(arg).__name__}({int.__repr__(arg)})"
    if isinstance(arg, memoryview):
        return f"memoryview of {arg.nbytes} bytes"
    if type(arg) is int and arg >= 4096:
        return hex(arg)
    try:
        text = repr(arg)
    except Exception:
        return object.__repr__(arg)
    return text if len(text) < 200 else text[:200] + "..."


def digest(page: bytes) -> str:
    same = next((number for number in range(300) if odds.content(number) == page), None)
    return f"content({same})" if same is not None else f"{page[:8].hex()}...{page[-4:].hex()}"


def differ(label: str, addr: int, there: bytes, wanted: bytes, word: int | None = None) -> str:
    at = next(i for i in range(PAGE) if there[i : i + 1] != wanted[i : i + 1])
    where = "" if word is None else f" (frame {word >> ksm.PAGE_FLAGS_SHIFT}, flags {word & 255:#x})"
    return f"{label}: the page at {addr & ~MASK:#x}{where} is {digest(there)}, and not {digest(wanted)}: byte {at} differs"


def spell(lines: list[tuple[int, int, int, bool]]) -> str:
    return "[" + ", ".join(f"{start:#x}-{end:#x} {prot}{'s' if shared else ''}" for start, end, prot, shared in lines) + "]"


def rng_of(*parts: Any) -> random.Random:
    return random.Random(" ".join(map(str, parts)))
