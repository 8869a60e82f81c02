# SPDX-License-Identifier: GPL-2.0-only
"""Memory that comes from elsewhere: files as memory, and writes from a view of the machine's own memory."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from typing import Any

from fuzz import odd as odds
from fuzz.memory import EEXIST, EINVAL, ENOMEM, EPERM, RW, Memory
from fuzz.shadow import PAGE, Area
from fuzz.world import Finding, Subject

ODD_FILES = {"directory": ("/", os.O_RDONLY), "null": ("/dev/null", os.O_RDONLY), "writeonly": ("/proc/self/fd/{}", os.O_WRONLY)}


class Images(Memory):
    def do_write_view(
        self, who: int, place: list[Any], offset: int, length: int, source: list[Any], update: bool, force: bool = False,
        frame: bool = False,
    ) -> None:  # fmt: skip
        """Write what a view of the machine's memory has, perhaps the very frame that is written."""
        subject = self.living(who)
        if subject.space is None or self.closed:
            return
        addr, at = self.place(subject.space, place), self.pfn(who, source) * PAGE
        if frame:
            outcome = self.call("view = m.frame", self.machine.frame, at // PAGE)
            self.legal("frame", outcome, {EINVAL, errno.EBUSY})
            if outcome.error is not None:
                return
            at = 0
        if not update:
            addr, at = addr + offset // 2, at + offset
        whole = outcome.value if frame else memoryview(self.machine)
        with whole as view, view[at : at + (PAGE if update else length)] as data:
            plain = bytes(data)
            if update and plain:
                self.renew(subject, addr, data, plain)
            elif plain:
                self.store(subject, addr, data, plain, force)
        if not self.still:
            # Somebody may have moved the page, and its frame have become another's, between the look at it and the call.
            subject.space.forget(addr, addr + max(length, PAGE))

    def do_image(self, who: int, place: list[Any] | None, numbers: list[int], offset: int, length: int | None, tail: int, node: int,
                 mode: str, keep: bool = False, odd: Any = None, still: bool = False) -> None:  # fmt: skip
        """A small file as memory: a copy, or the file itself. It is kept open if it is to be changed, which the copy does not notice."""
        subject = self.subject(who)
        space = subject.space
        data = b"".join(odds.content(number) for number in numbers) + bytes(tail)
        addr = 0 if place is None else self.place(space, place)
        with contextlib.ExitStack() as stack:
            file = tempfile.TemporaryFile()  # noqa: SIM115
            stack.callback(file.close)
            file.write(data)
            file.flush()
            modes: dict[str, Any] = {"file": file, "fd": file.fileno(), "closed": 1 << 20, "negative": -1, "huge": 1 << 40, "text": "image"}
            if mode in ODD_FILES:
                path, how = ODD_FILES[mode]
                modes[mode] = os.open(path.format(file.fileno()), how)
                stack.callback(os.close, modes[mode])
            image = modes[mode]
            self.note(f"# an image of contents {numbers} and {tail} zeros, as {mode}")
            if not self.good_image(subject, image, mode, data, offset, length, addr, node):
                return
            legal = {ENOMEM, EEXIST, EINVAL, EPERM} | ({errno.ENODEV} if "image" in self.common.refused else set())
            if odd is not None and odd[1][0] in ("value", "none"):
                odd = None  # an odd offset or length stands for another number
            asked = self.ask(f"{subject.label}.mmap_image", subject.process.mmap_image, [offset, length, addr], "uuu", legal, odd=odd,
                             gone=space is None, first=(image,), node=node, still=still and not keep)  # fmt: skip
            if asked is None or space is None or asked[0].error is not None:
                return
            start, size = asked[0].value, length if length is not None else len(data) - offset
            if mode not in ("file", "fd") or (addr and start != addr) or space.over(start, start + size):
                raise Finding("mmap_image", f"a {mode} at {start:#x}")
            self.new_place(start, size)
            space.map(Area(start, start + size, RW))
            space.write(start, data[offset : offset + size])
            if keep:
                self.images.append((start, size, file))
                stack.pop_all()

    def do_change_image(self, numbers: list[int]) -> None:
        """Write to the file of an image."""
        if self.images:
            _start, size, file = self.images[-1]
            data = b"".join(odds.content(number) for number in numbers)
            os.pwrite(file.fileno(), (data * (size // len(data) + 1))[:size], 0)
            self.note(f"# the file of that image is now {numbers}")

    def good_image(
        self, subject: Subject, image: Any, mode: str, data: bytes, offset: int, length: int | None, addr: int, node: int
    ) -> bool:
        """Whether the arguments of an image are good. Otherwise the call has to raise ValueError or TypeError."""
        size = length if length is not None else len(data) - offset
        if (mode in ("file", "fd") and offset >= 0 and size > 0 and offset % PAGE == size % PAGE == 0 and offset + size <= len(data)
                and 0 <= node < self.config["machine"]["nodes"]):  # fmt: skip
            return True
        outcome = self.call(f"{subject.label}.mmap_image", subject.process.mmap_image, image, offset, length, addr, node=node)
        if self.closed or subject.space is None:
            if outcome.error is None:
                raise Finding("exited", "mmap_image of a process that has exited, or of a closed machine")
        elif not isinstance(outcome.error, (OSError, AttributeError, *self.odd_errors)):
            raise Finding("mmap_image", f"{outcome.name} for a {mode}, offset {offset}, length {length} of {len(data)}, node {node}")
        return False
