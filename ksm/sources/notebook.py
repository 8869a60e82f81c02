# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: memory that is read once, and given to many machines.
"""A notebook stands in for a machine while sources are read, and notes what they do with their processes. A stage plays that in a machine.

So several machines have the same memory, also that of processes which go on meanwhile. A page is noted as the 32 bytes that stand for it
in a machine of fingerprints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PAGE_SIZE, PROT_READ, PROT_WRITE
from ksm.fingerprint.frames import frames_of
from ksm.sources.pieces import Run, Sink

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ksm.machine import Machine
    from ksm.process import Process

FRAME = 32  # bytes
BLOCK = 2 << 20  # bytes of memory of which a Shadow keeps the frames together
IN_BLOCK = BLOCK // PAGE_SIZE
NONE = bytes(FRAME)  # stands for no page
NO_PAGES = bytes(IN_BLOCK * FRAME)
PLACES = 1 << 32  # the first address that a process is given, if it asks for none
FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE


class Step(NamedTuple):
    """What is done with a process, by its number: the name of a method, and what it is given. `load` has runs, frames, and `always`.

    Of no process (-1): huge, the mode of transparent huge pages; hold and release, what a driver holds; apart, the number of a source whose
    pages of zeros are set apart.
    """

    process: int
    call: str
    given: tuple[Any, ...] = ()


class Range(NamedTuple):
    """Pages of a process, in place of their page table."""

    process: int
    start: int
    length: int


class NotedHeld:
    """Stands in for ksm.sources.held.Held."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.pages = 0

    def __len__(self) -> int:
        return self.pages

    def add(self, words: Any) -> None:
        self.notebook.note(-1, "hold", words)
        self.pages += words.length // PAGE_SIZE

    def release(self) -> None:
        if self.pages:
            self.notebook.note(-1, "release")
        self.pages = 0


class NotedProcess:
    """Stands in for a Process: the methods that sources call."""

    def __init__(self, notebook: Notebook, name: str | None) -> None:
        self.machine = notebook
        self.name = name
        self.number = notebook.count
        self.alive = True
        self.next = PLACES
        notebook.count += 1

    def note(self, call: str, *given: Any) -> None:
        self.machine.note(self.number, call, *given)

    def _merge_any(self) -> None:
        self.note("_merge_any")

    def mmap(self, length: int, prot: int = PROT_READ | PROT_WRITE, flags: int = MAP_PRIVATE | MAP_ANONYMOUS, addr: int = 0) -> int:
        if not addr:
            addr = self.next
            self.next += -(-length // BLOCK) * BLOCK + BLOCK
        self.note("mmap", length, prot, flags | FLAGS, addr)
        return addr

    def munmap(self, addr: int, length: int) -> None:
        self.note("munmap", addr, length)

    def madvise(self, addr: int, length: int, advice: int) -> None:
        self.note("madvise", addr, length, advice)

    def touch(self, addr: int, length: int = 1) -> None:
        self.note("touch", addr, length)

    def load(self, addr: int, frames: Buffer, *, always: bool = False) -> int:
        view = memoryview(frames)
        self.note("load", [(addr, addr + view.nbytes // FRAME * PAGE_SIZE)], bytes(view), always)
        return view.nbytes // FRAME

    def update(self, addr: int, buffer: Buffer, *, always: bool = False) -> int:
        view = memoryview(buffer)
        self.sink(0, always)([(addr, addr + view.nbytes)], view)
        return view.nbytes // PAGE_SIZE

    def sink(self, base: int, always: bool) -> Sink:
        """Takes pages as ksm.sources.stream.bring() does. It is called in several threads."""

        def sink(runs: list[Run], view: memoryview) -> None:
            self.note("load", [(base + start, base + end) for start, end in runs], frames_of(view, key=self.machine.key), always)

        return sink

    def page_table(self, addr: int, length: int) -> Range:
        return Range(self.number, addr, length)

    def fork(self, name: str | None = None) -> NotedProcess:
        child = NotedProcess(self.machine, name)
        self.note("fork", name)
        return child

    def exit(self) -> None:
        if self.alive:
            self.note("exit")
        self.alive = False


class Notebook:
    """Stands in for a Machine. `readings` has the steps of each time that the sources were read."""

    pages = "fingerprints"

    def __init__(self, key: bytes | None = None) -> None:
        self.key = key
        self.count = 0
        self.readings: list[list[Step]] = []
        self.huge = "madvise"

    def begin(self) -> None:
        """Sources are read from now on, for the first time or once more."""
        self.readings.append([])

    def note(self, process: int, call: str, *given: Any) -> None:
        if self.readings:  # after close() the sources go on to their end
            self.readings[-1].append(Step(process, call, given))

    def spawn(self, name: str | None = None) -> NotedProcess:
        self.note(-1, "spawn", name)
        return NotedProcess(self, name)

    def held(self) -> NotedHeld:
        return NotedHeld(self)

    @property
    def transparent_hugepage(self) -> str:
        return self.huge

    @transparent_hugepage.setter
    def transparent_hugepage(self, mode: str) -> None:
        self.huge = mode
        self.note(-1, "huge", mode)

    def vmstat(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.readings = []


class Stage:
    """The processes of a machine in which a notebook is played, by their numbers, and what is held of them."""

    def __init__(self, machine: Machine) -> None:
        from ksm.sources.held import Held

        self.machine = machine
        self.processes: list[Process] = []
        self.held = Held(machine)

    def play(
        self, steps: Iterable[Step], *, huge: bool = True, hold: bool = True, apart: Callable[[int], None] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Do what is noted. Without `huge` there are no huge pages, and without `hold` nothing is held. apart(number) sets zeros apart, and
        pause() is called now and then. OSError.
        """
        for number, call, given in steps:
            if call == "load":
                load(self.processes[number], *given)
                if pause is not None:
                    pause()
            elif call == "spawn":
                self.processes.append(self.machine.spawn(*given))
            elif call == "fork":
                self.processes.append(self.processes[number].fork(*given))
            elif call == "huge":
                if huge:
                    self.machine.transparent_hugepage = given[0]
            elif call == "hold":
                if hold:
                    where = given[0]
                    self.held.add(self.processes[where.process].page_table(where.start, where.length))
            elif call == "release":
                self.held.release()
            elif call == "apart":
                if apart is not None:
                    apart(*given)
            elif call == "touch":
                self.processes[number].touch(*given)
            else:
                getattr(self.processes[number], call)(*given)


def load(process: Process, runs: list[Run], frames: bytes, always: bool) -> None:
    view = memoryview(frames)
    at = 0
    for start, end in runs:
        length = (end - start) // PAGE_SIZE * FRAME
        process.load(start, view[at : at + length], always=always)
        at += length


class Shadow:
    """The frames of processes as the steps leave them, in blocks; NONE where there is no page."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[int, int], bytearray] = {}

    def copy(self) -> Shadow:
        result = Shadow()
        result.blocks = {place: bytearray(block) for place, block in self.blocks.items()}
        return result

    def parts(self, process: int, runs: Iterable[Run]) -> Iterator[tuple[tuple[int, int], int, int]]:
        """The parts of the runs in each block: (its place, first byte, last byte)."""
        for start, end in runs:
            page, last = start // PAGE_SIZE, end // PAGE_SIZE
            while page < last:
                block, first = divmod(page, IN_BLOCK)
                count = min(last - page, IN_BLOCK - first)
                yield (process, block), first * FRAME, (first + count) * FRAME
                page += count

    def put(self, process: int, runs: Iterable[Run], frames: bytes) -> None:
        at = 0
        for place, first, last in self.parts(process, runs):
            block = self.blocks.get(place)
            if block is None:
                block = self.blocks[place] = bytearray(IN_BLOCK * FRAME)
            block[first:last] = frames[at : at + last - first]
            at += last - first

    def drop(self, process: int, run: Run) -> None:
        for place, first, last in self.parts(process, [run]):
            if place in self.blocks:
                self.blocks[place][first:last] = bytes(last - first)

    def others(self, process: int, runs: Iterable[Run], frames: bytes) -> tuple[list[Run], bytes]:
        """The pages that are not here as these frames: their runs, and the frames."""
        found: list[Run] = []
        kept: list[bytes] = []
        at = 0
        for place, first, last in self.parts(process, runs):
            block = self.blocks.get(place, NO_PAGES)
            some = frames[at : at + last - first]
            at += last - first
            if block[first:last] == some:
                continue
            for byte in range(0, last - first, FRAME):
                frame = some[byte : byte + FRAME]
                if block[first + byte : first + byte + FRAME] != frame:
                    start = place[1] * BLOCK + (first + byte) // FRAME * PAGE_SIZE
                    if found and found[-1][1] == start:
                        start = found.pop()[0]
                        found.append((start, place[1] * BLOCK + ((first + byte) // FRAME + 1) * PAGE_SIZE))
                    else:
                        found.append((start, start + PAGE_SIZE))
                    kept.append(frame)
        return found, b"".join(kept)

    def follow(self, steps: Iterable[Step]) -> None:
        for process, call, given in steps:
            if call == "load":
                self.put(process, given[0], given[1])
            elif call == "munmap" or (call == "madvise" and given[2] == MADV_DONTNEED):
                self.drop(process, (given[0], given[0] + given[1]))
            elif call == "exit":
                self.blocks = {place: block for place, block in self.blocks.items() if place[0] != process}


def turns(readings: list[list[Step]]) -> list[list[Step]]:
    """What passes after the last of two readings see: the pages that differ, as they were before, and as they are now, in turn.

    Nothing else changes any more. A page that one reading lacks is left as it is in the last one.
    """
    if len(readings) < 2:
        return []
    before = Shadow()
    before.follow(readings[0])
    now = before.copy()
    now.follow(readings[1])
    there: list[Step] = []
    here: list[Step] = []
    for (process, number), block in now.blocks.items():
        old = before.blocks.get((process, number))
        if old is None or old == block:
            continue
        runs: list[Run] = []
        frames: tuple[list[bytes], list[bytes]] = ([], [])
        for page in range(IN_BLOCK):
            was, is_now = (bytes(each[page * FRAME : (page + 1) * FRAME]) for each in (old, block))
            if was != is_now and NONE not in (was, is_now):
                start = number * BLOCK + page * PAGE_SIZE
                runs.append((start, start + PAGE_SIZE))
                frames[0].append(was)
                frames[1].append(is_now)
        if runs:
            for steps, some in zip((there, here), frames, strict=True):
                steps.append(Step(process, "load", (runs, b"".join(some), False)))
    return [there, here]


def changed(readings: list[list[Step]]) -> list[list[Step]]:
    """The same two readings, the second one without the pages that the first one has as they are."""
    if len(readings) < 2:
        return readings
    shadow = Shadow()
    shadow.follow(readings[0])
    kept: list[Step] = []
    for step in readings[1]:
        if step.call != "load" or step.given[2]:
            kept.append(step)
        else:
            runs, frames = shadow.others(step.process, *step.given[:2])
            if runs:
                kept.append(Step(step.process, "load", (runs, frames, False)))
        shadow.follow([step])
    return [readings[0], kept]
