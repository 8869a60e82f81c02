# SPDX-License-Identifier: GPL-2.0-only
"""Files as sources of memory: cores and images, some of them damaged. They are refused in one line, or read as they are."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import struct
import tempfile
from array import array
from typing import Any

import ksm
from fuzz import odd as odds
from fuzz.devices import Devices
from fuzz.shadow import PAGE, ZEROS
from fuzz.world import Finding
from ksm.estimate.savings import Tally
from ksm.sources import SourceError, open_file

PT_LOAD, PT_NOTE, NT_FILE, NT_AUXV = 1, 4, 0x46494C45, 6
OWNERS = ("CORE", "QEMU", "VMCOREINFO", "GDB")


def note(owner: str, kind: int, data: bytes) -> bytes:
    name = owner.encode() + b"\0"
    return struct.pack("<3I", len(name), len(data), kind) + name + bytes(-len(name) % 4) + data + bytes(-len(data) % 4)


def core(rng: random.Random) -> bytes:
    """An ELF core with a few segments and notes."""
    number = rng.randrange(1, 5)
    starts = [rng.choice([0x400000, 0x7F0000000000, (1 << 63) + PAGE, 0x10800]) + i * 0x10000 for i in range(number)]
    listed = [(start, start + PAGE, 0) for start in starts if rng.random() < 0.4]
    paths = rng.choice([b"/lib/x\0", b"/dev/shm/y\0", b"/SYSV\0"]) * len(listed)
    notes = note("CORE", NT_FILE, struct.pack("<2Q", len(listed), PAGE) + b"".join(struct.pack("<3Q", *each) for each in listed) + paths)
    notes += note(rng.choice(OWNERS), 1, b"x") + note("CORE", NT_AUXV, struct.pack("<4Q", 33, starts[0], 0, 0))
    offset = 64 + (number + 1) * 56
    headers, body = [struct.pack("<2I6Q", PT_NOTE, 4, offset, 0, 0, len(notes), 0, 4)], notes
    for start in starts:
        body += bytes(-(offset + len(body)) % PAGE)
        data = odds.content(rng.randrange(9), rng.randrange(1, 6))
        flags = rng.choice([4, 6])
        headers.append(struct.pack("<2I6Q", PT_LOAD, flags, offset + len(body), start, start, len(data), len(data), PAGE))
        body += data
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI3QI6H", 4, 62, 1, 0, 64, 0, 0, 64, 56, number + 1, 64, 0, 0)
    return head + b"".join(headers) + body


def damaged(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 2, 8])):
        how, at = rng.randrange(5), rng.choice([rng.randrange(len(changed)), rng.randrange(min(len(changed), 600))])
        if how == 0:
            changed[at] = rng.randrange(256)
        elif how == 1:
            changed[at : at + 8] = struct.pack("<Q", rng.choice(odds.NUMBERS) % (1 << 64))
        elif how == 2:
            changed[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 0xFFFF, 0xFFFFFFFF, 4]))
        elif how == 3:
            del changed[max(1, at) :]
        else:
            changed[at:at] = bytes(rng.choice([1, 8, PAGE]))
    return bytes(changed)


class Files(Devices):
    def do_source(self, kind: str, seed: int) -> None:
        """Open it, map it into a machine of its own, and compare what is there with the file."""
        rng = random.Random(seed)
        data = damaged(rng, core(rng) if kind == "core" else odds.content(rng.randrange(9), rng.randrange(1, 20)))
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            outcome = self.call(f"# a {kind} of seed {seed}", open_file, file.name)
            if isinstance(outcome.error, SourceError):
                if "\n" in str(outcome.error):
                    raise Finding("source", f"more than a line: {outcome.error!r}")
                return
            if outcome.error is not None:
                raise Finding("source", f"a {kind} of seed {seed}: {outcome.name} {outcome.error}")
            with contextlib.closing(outcome.value) as source, ksm.Machine("1M", max_memory="64M") as machine:
                attached = self.call("attach", source.attach, machine)
                if attached.error is None:
                    self.read_source(source, machine, data)
                elif not isinstance(attached.error, (OSError, SourceError)):
                    raise Finding("source", f"attach of a {kind} of seed {seed}: {attached.name} {attached.error}")

    def read_source(self, source: Any, machine: ksm.Machine, data: bytes) -> None:
        source.refresh(1)
        machine.ksm.scan(2)
        tally = Tally(machine)
        for start, length in source.ranges():
            tally.next_source()
            tally.add(source.process.page_table(start, min(length, 64 * PAGE)))
            for addr in range(start, start + min(length, 64 * PAGE), PAGE):
                page = source.process.read(addr, PAGE)
                if page != ZEROS and page not in data:  # zeros lie between the parts that count
                    raise Finding("source", f"the page at {addr:#x} is not in the file")
        tally.next_source()
        lines = machine.check()
        if lines:
            raise Finding("source", f"check() of a machine with it: {lines[:3]}")
        refused = self.call("tally.add", tally.add, array("L", [ksm.PAGE_PRESENT | ksm.PAGE_KSM | 1 << 50]))
        if not isinstance(refused.error, ValueError):
            raise Finding("source", f"a frame that is not there: {refused.name}")

    def do_wild_tally(self, seed: int) -> None:
        """Page tables that no process has: of frames that are there, that were there once, and that never were."""
        rng = random.Random(seed)
        frames = [0, 1, 2, 255, 256, 511, 512, 513, 520, 1024, 1030, 1 << 20, 1 << 55]
        words = array("L", [rng.choice(frames) << ksm.PAGE_FLAGS_SHIFT | rng.randrange(256) for _ in range(rng.randrange(12))])
        with tempfile.TemporaryFile() as file, ksm.Machine("2M", max_memory="64M") as machine:
            os.write(file.fileno(), odds.content(1, 4))
            for process in (machine.spawn(), machine.spawn()):
                process.mmap_image(file)
            machine.processes[1].exit()  # and with it the first image
            tally = Tally(machine)
            tally.next_source()
            outcome = self.call("tally.add", tally.add, words)
            if outcome.error is not None and not isinstance(outcome.error, ValueError):
                raise Finding("source", f"a page table that no process has: {outcome.name} {outcome.error}")

    def do_cut_image(self, pages: int, left: int, still: bool) -> None:
        """A file that is cut off when its size was known: a copy is refused; of the file itself zeros take the place of what is gone."""
        with tempfile.TemporaryFile() as file:
            data = odds.content(1, pages)
            os.write(file.fileno(), data)
            made = self.call("p = m.spawn", self.machine.spawn)
            if not self.tell("spawn", made, {errno.ENOMEM}):
                return
            process = made.value
            length = odds.Calls(pages * PAGE, lambda: os.ftruncate(file.fileno(), left))
            outcome = self.call("p.mmap_image", process.mmap_image, file, 0, length, still=still)
            refused = {errno.ENODEV} if "image" in self.common.refused else set()
            if self.tell("an image that was cut off", outcome, {errno.ENOMEM, *({errno.EIO} if left < len(data) else refused), *refused}):
                there = self.call("p.read", process.read, outcome.value, len(data), force=True)
                if there.error is None and there.value != data[:left].ljust(len(data), b"\0"):
                    raise Finding("bytes", f"an image of {pages} pages, of which {left} bytes are left, has others")
                self.tell("read of all of it", there, {errno.ENOMEM})
                if not still and left < len(data):
                    raise Finding("source", f"a copy of {pages} pages, of which {left} bytes were left")
            process.exit()

    def do_lying_image(self, offset: int, length: int) -> None:
        """An offset and a length whose sums are wrong: what is mapped has to be in the file."""
        with tempfile.TemporaryFile() as file:
            os.write(file.fileno(), odds.content(1, 2))
            made = self.call("p = m.spawn", self.machine.spawn)
            if not self.tell("spawn", made, {errno.ENOMEM}):
                return
            process = made.value
            lies = odds.Miscounting(offset), odds.Miscounting(length)
            outcome = self.call("p.mmap_image", process.mmap_image, file, *lies)
            if outcome.error is None:
                self.tell("read of all of it", self.call("p.read", process.read, outcome.value, length, force=True), {errno.ENOMEM})
            process.exit()
