# SPDX-License-Identifier: GPL-2.0-only
"""The actions on a process, and what they do to its shadow. A call may raise only the errors that its docstring names."""

from __future__ import annotations

import errno
import re
from typing import Any

import ksm
from fuzz import odd as odds
from fuzz.shadow import HEAP, LOWEST, MASK, PAGE, STACK, TASK_SIZE, ZEROS, Area, Shared, Space, up
from fuzz.world import BASE, Finding, Outcome, Subject, World, digest

RW = ksm.PROT_READ | ksm.PROT_WRITE
ANONYMOUS = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS
POPULATE = 0x8000
MAP_FLAGS = 0xF | ksm.MAP_FIXED | ksm.MAP_ANONYMOUS | ksm.MAP_NORESERVE | POPULATE | ksm.MAP_FIXED_NOREPLACE
MARKS = {ksm.MADV_DONTFORK: ("dontfork", True), ksm.MADV_DOFORK: ("dontfork", False), ksm.MADV_WIPEONFORK: ("wipe", True),
         ksm.MADV_KEEPONFORK: ("wipe", False)}  # fmt: skip
ADVICE = {ksm.MADV_NORMAL, ksm.MADV_DONTNEED, ksm.MADV_MERGEABLE, ksm.MADV_UNMERGEABLE, ksm.MADV_HUGEPAGE, ksm.MADV_NOHUGEPAGE, *MARKS}
EFAULT, EINVAL, ENOMEM, EEXIST, EAGAIN, EPERM = errno.EFAULT, errno.EINVAL, errno.ENOMEM, errno.EEXIST, errno.EAGAIN, errno.EPERM


class Memory(World):
    # Mappings

    def do_spawn(self, node: int) -> None:
        if len([subject for subject in self.subjects if subject.space is not None]) < self.config["processes"] and not self.closed:
            self.spawn(node)
            self.do_mmap(
                len([each for each in self.subjects if each.space is not None]) - 1, ["slot", 0], 40 * PAGE, RW, ANONYMOUS | ksm.MAP_FIXED
            )

    def do_mmap(self, who: int, place: list[Any], length: int, prot: int, flags: int, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        asked = self.ask(f"{subject.label}.mmap", subject.process.mmap, [length, prot, flags, self.place(space, place)], "uiiu",
                         {EINVAL, ENOMEM, EEXIST, EPERM}, odd=odd, gone=space is None)  # fmt: skip
        if asked is None or space is None:
            return
        outcome, (length, prot, flags, addr) = asked
        fixed, size = flags & (ksm.MAP_FIXED | ksm.MAP_FIXED_NOREPLACE), up(length)
        wanted = self.mmap_error(space, length, prot, flags, addr)
        if outcome.errno != wanted and (wanted is not None or outcome.errno != ENOMEM):
            raise Finding("mmap", f"{outcome.name}, and not {'success' if wanted is None else errno.errorcode[wanted]}")
        if outcome.error is not None:
            if fixed and wanted is None:
                self.resync(subject, [(addr, addr + size)])
            return
        start = outcome.value
        if fixed and start != addr:
            raise Finding("mmap", f"at {start:#x} instead of {addr:#x}")
        if not fixed and space.over(start, start + size):
            raise Finding("mmap", f"{start:#x} was taken")
        self.new_place(start, size)
        space.map(Area(start, start + size, prot, Shared(size // PAGE) if flags & 0xF == ksm.MAP_SHARED else None))

    def mmap_error(self, space: Space, length: int, prot: int, flags: int, addr: int) -> int | None:
        """Why it has to fail, in the order in which do_mmap() and __get_unmapped_area() ask."""
        if length == 0:
            return EINVAL
        if length > TASK_SIZE:
            return ENOMEM
        if prot & ~7 or flags & ~MAP_FLAGS or not flags & ksm.MAP_ANONYMOUS or flags & 0xF not in (1, 2):
            return EINVAL
        if not flags & (ksm.MAP_FIXED | ksm.MAP_FIXED_NOREPLACE):
            return None
        if addr > TASK_SIZE - up(length):
            return ENOMEM
        if addr & MASK or addr < LOWEST:
            return EINVAL if addr & MASK else EPERM
        return EEXIST if flags & ksm.MAP_FIXED_NOREPLACE and space.over(addr, addr + up(length)) else None

    def new_place(self, start: int, size: int) -> None:
        if start & MASK or start < LOWEST or start + size > TASK_SIZE:
            raise Finding("place", f"a mapping at {start:#x}, {size} bytes: no process may have that")

    def resync(self, subject: Subject, holes: list[tuple[int, int]], prot: tuple[int, int, int] | None = None) -> None:
        """A call failed half way: take from the process what it has unmapped, or protected otherwise."""
        assert subject.space is not None
        space, end = subject.space, 0
        lines = subject.process.maps()
        for line in [*lines, None]:
            start = line.start if line is not None else 1 << 48
            for low, high in holes:
                space.unmap(max(end, low), min(start, high))
            end = line.end if line is not None else end
        for line in lines if prot is not None else ():
            assert prot is not None
            for area in space.cut(max(line.start, prot[0]), min(line.end, prot[1])) if line.end > prot[0] and line.start < prot[1] else ():
                if line.prot == prot[2]:
                    area.prot = line.prot

    def do_munmap(self, who: int, place: list[Any], length: int, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        asked = self.ask(f"{subject.label}.munmap", subject.process.munmap, [self.place(space, place), length], "uu", {EINVAL, ENOMEM},
                         odd=odd, gone=space is None)  # fmt: skip
        if asked is None or space is None:
            return
        outcome, (addr, length) = asked
        invalid = addr & MASK or length == 0 or addr > TASK_SIZE or length > TASK_SIZE - addr
        if (outcome.errno == EINVAL) != bool(invalid):
            raise Finding("munmap", f"{outcome.name}, with arguments that are {'not ' if invalid else ''}valid")
        if outcome.errno == ENOMEM:
            self.resync(subject, [(addr, addr + up(length))])
        elif outcome.error is None:
            space.unmap(addr, addr + up(length))

    def do_mprotect(self, who: int, place: list[Any], length: int, prot: int, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        asked = self.ask(f"{subject.label}.mprotect", subject.process.mprotect, [self.place(space, place), length, prot], "uui",
                         {EINVAL, ENOMEM}, odd=odd, gone=space is None)  # fmt: skip
        if asked is None or space is None:
            return
        outcome, (addr, length, prot) = asked
        end = addr + up(length)
        if addr & MASK or length == 0 or end >= 1 << 64 or prot & ~7:
            wanted = "EINVAL" if addr & MASK else "success" if length == 0 else "ENOMEM" if end >= 1 << 64 else "EINVAL"
            if outcome.name != wanted:
                raise Finding("mprotect", f"{outcome.name}, and not {wanted}")
            return
        reach = space.covered(addr, end)
        if outcome.name != ("success" if reach == end else "ENOMEM"):
            if not (self.common.short and outcome.errno == ENOMEM):
                raise Finding("mprotect", f"{outcome.name} of {addr:#x}-{end:#x}, of which {reach - addr:#x} bytes are mapped")
            self.resync(subject, [], (addr, reach, prot))
        elif self.common.short and reach != end:
            self.resync(subject, [], (addr, reach, prot))
        else:
            for area in space.cut(addr, reach) if reach > addr else ():
                area.prot = prot

    def do_madvise(self, who: int, place: list[Any], length: int, advice: int, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        asked = self.ask(f"{subject.label}.madvise", subject.process.madvise, [self.place(space, place), length, advice], "uui",
                         {EINVAL, ENOMEM, EAGAIN}, odd=odd, gone=space is None)  # fmt: skip
        if asked is None or space is None:
            return
        outcome, (addr, length, advice) = asked
        end = addr + up(length)
        if advice not in ADVICE or addr & MASK or up(length) >= 1 << 64 or end >= 1 << 64:
            if outcome.errno != EINVAL:
                raise Finding("madvise", f"{outcome.name} for invalid arguments")
            return
        if outcome.errno == EAGAIN and advice == ksm.MADV_DONTNEED:
            raise Finding("madvise", "EAGAIN, where no memory is needed")
        attribute, value = MARKS.get(advice, ("", None))
        inside = space.cut(addr, end) if end > addr else []
        for area in inside:
            if advice == ksm.MADV_DONTNEED and area.shared is None:
                space.zero(area.start, area.end)
            elif advice == ksm.MADV_WIPEONFORK and area.shared is not None:
                if outcome.errno not in (EINVAL, EAGAIN):
                    raise Finding("madvise", f"{outcome.name} of MADV_WIPEONFORK for shared memory")
                return
            elif attribute and outcome.errno == EAGAIN:
                names = next((line.vm_flags for line in subject.process.smaps() if line.start <= area.start < line.end), ())
                if (("dc" if attribute == "dontfork" else "wf") in names) == value:
                    setattr(area, attribute, value)
            elif attribute:
                setattr(area, attribute, value)
        wanted = "success" if space.covered(addr, end) == end else "ENOMEM"
        if outcome.name not in (wanted, "EAGAIN") or (outcome.name == "EAGAIN" and not self.scarce()):
            raise Finding("madvise", f"{outcome.name} of {advice} for {addr:#x}-{end:#x}, and not {wanted}")

    def scarce(self) -> bool:
        """Whether memory may run out."""
        return self.common.short or not self.solo or self.config["scarce"] or self.machine.free_pages() < 64

    def do_mremap(self, who: int, place: list[Any], old: int, new: int, flags: int, to: list[Any] | None, odd: Any = None) -> None:
        subject = self.subject(who)
        space, process = subject.space, subject.process
        args = [self.place(space, place), old, new, flags] + ([] if to is None else [self.place(space, to)])
        vmas = process.maps() if space is not None and not self.closed else []
        asked = self.ask(f"{subject.label}.mremap", process.mremap, args, "uuui" + "u" * (len(args) - 4),
                         {EINVAL, EFAULT, ENOMEM, EPERM}, odd=odd, gone=space is None)  # fmt: skip
        if asked is None or space is None:
            return
        outcome, (addr, old, new, flags, *fixed) = asked
        # MREMAP_FIXED without a new address is the address 0. It is refused once what was mapped there is gone.
        target = fixed[0] if fixed else 0 if flags & 2 else None
        old_end, size = addr + up(old), up(new)
        vma = next((vma for vma in vmas if vma.start <= addr < vma.end), None)
        together = up(old) == size and self.config["machine"]["era"] == "7.3"
        if target is not None and together and (outcome.error is None or outcome.errno == ENOMEM):
            if outcome.error is None and (vma is None or addr & MASK or size == 0 or flags & ~3 or outcome.value != target):
                raise Finding("mremap", f"success with invalid arguments, or to another place than {target:#x}")
            self.move_together(subject, addr, old_end, target, moved=outcome.error is None)
            return
        if outcome.error is not None:
            # Parts of the target, and of the end that would be cut off, may be gone.
            holes = [(target, target + size)] if target is not None else []
            self.resync(subject, [*holes, (addr + size, old_end)])
            if (
                outcome.errno == EFAULT
                and old
                and vma is not None
                and min(old_end, addr + size if target is not None else old_end) <= vma.end
            ):
                raise Finding("mremap", f"EFAULT, and all of {addr:#x}-{old_end:#x} is mapped")
            return
        if vma is None or addr & MASK or size == 0 or flags & ~3:
            raise Finding("mremap", "success with invalid arguments")
        start = outcome.value
        if target is not None and start != target:
            raise Finding("mremap", f"to {start:#x} instead of {target:#x}")
        if target is None and not flags & ksm.MREMAP_MAYMOVE and start != addr:
            raise Finding("mremap", "moved, which it may not")
        if start == addr and size <= old_end - addr:
            space.unmap(addr + size, old_end)
            return
        self.new_place(start, size)
        if target is not None:
            space.unmap(target, target + size)
            space.unmap(addr + size, old_end)
            old_end = min(old_end, addr + size)
        if old_end > vma.end or space.covered(addr, old_end) != old_end:
            raise Finding("mremap", f"success, and {addr:#x}-{old_end:#x} is not one mapping")
        left = vma_part(space, addr, old_end)
        space.move(addr, old_end - addr, start, size)
        # As in the kernel: a mapping that cannot be split for want of memory stays mapped, without its pages.
        if self.common.short and left is not None and start != addr and any(line.start <= addr < line.end for line in process.maps()):
            space.map(left)

    def move_together(self, subject: Subject, addr: int, end: int, target: int, *, moved: bool) -> None:
        """mremap() since 6.17: each mapping of the range moves, or stays for want of memory."""
        space = subject.space
        assert space is not None
        lines = subject.process.maps()
        for low, high in [(max(area.start, addr), min(area.end, end)) for area in space.areas if area.start < end and area.end > addr]:
            stays = any(line.start <= low < line.end for line in lines)
            if stays and not moved:
                continue
            left = vma_part(space, low, high)
            space.move(low, high - low, low - addr + target, high - low)
            # As above: it stays mapped, without its pages.
            if stays and left is not None:
                space.map(left)
        self.resync(subject, [(target, target + end - addr)])

    def do_brk(self, who: int, end: int, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        asked = self.ask(f"{subject.label}.brk", subject.process.brk, [HEAP + end], "u", set(), odd=odd, gone=space is None)
        if asked is None or space is None:
            return
        outcome, (wanted,) = asked
        old, new = up(space.brk), up(wanted)
        if outcome.value == wanted and HEAP <= wanted <= TASK_SIZE:
            if new > old and space.over(old, new):
                raise Finding("brk", f"the heap grew over another mapping, to {wanted:#x}")
            space.unmap(new, old)
            if new > old:
                space.map(Area(old, new, RW))
            space.brk = wanted
            return
        if outcome.value != space.brk:
            raise Finding("brk", f"answered {outcome.value:#x}, where the heap ends at {space.brk:#x} and {wanted:#x} was asked for")
        free = not space.over(old, new + PAGE) if new > old else bool(space.over(new, old)) or new == old
        if HEAP <= wanted <= TASK_SIZE - 2 * PAGE and free and not self.common.short:
            raise Finding("brk", f"not moved to {wanted:#x}, although it could")
        self.resync(subject, [(new, old)])

    def do_prctl(self, who: int, option: int, arg: int, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        asked = self.ask(
            f"{subject.label}.prctl", subject.process.prctl, [option, arg], "iu", {EINVAL, ENOMEM}, odd=odd, gone=space is None
        )
        if asked is None or space is None:
            return
        outcome, (option, arg) = asked
        if option == ksm.PR_SET_MEMORY_MERGE and outcome.error is None:
            space.merge_any = bool(arg)
        if option == ksm.PR_GET_MEMORY_MERGE and outcome.error is None and outcome.value != space.merge_any:
            raise Finding("prctl", f"PR_GET_MEMORY_MERGE answers {outcome.value}")

    # Processes

    def do_fork(self, who: int) -> None:
        subject = self.subject(who)
        if subject.space is not None and len([each for each in self.subjects if each.space is not None]) >= self.config["processes"]:
            return
        outcome = self.call(f"p{self.made + 1} = {subject.label}.fork", subject.process.fork)
        if self.gone("fork", outcome, subject.space is None) or subject.space is None:
            return
        self.legal("fork", outcome, {ENOMEM})
        if outcome.error is None:
            self.adopt(outcome.value, subject.space.fork())
        elif not self.scarce():
            raise Finding("fork", "ENOMEM, and there is memory")

    def do_exec(self, who: int, named: bool = False) -> None:
        subject = self.subject(who)
        outcome = self.call(f"{subject.label}.exec", subject.process.exec, *(["renamed"] if named else []))
        if self.gone("exec", outcome, subject.space is None):
            return
        self.legal("exec", outcome, {ENOMEM})
        if outcome.error is None:
            fresh = Space()
            fresh.merge_any = subject.space.merge_any if subject.space is not None else False
            fresh.map(Area(TASK_SIZE - STACK, TASK_SIZE, RW))
            subject.space = fresh

    def do_exit(self, who: int) -> None:
        subject = self.subject(who)
        self.legal("exit", self.call(f"{subject.label}.exit", subject.process.exit), set())
        if not self.closed:
            subject.space = None
            if self.common.closing:
                return
            if subject.process.alive or subject.process.pid in self.machine.processes:
                raise Finding("exited", "a process is alive after exit()")

    # Bytes

    def done(self, outcome: Outcome) -> int:
        match = re.search(r", (\d+) done", str(outcome.error))
        if match is None:
            raise Finding("error", f"how much was done? {outcome.error}")
        return int(match[1])

    def reached(self, what: str, outcome: Outcome, addr: int, end: int, reach: int, done: int) -> None:
        """An access has to get as far as it is allowed to, unless memory runs out."""
        if outcome.errno == ENOMEM or (outcome.errno == EFAULT and self.common.poisoned):
            if not self.scarce() and not self.common.poisoned:
                raise Finding("memory", f"{what}: ENOMEM, and there is memory")
            return
        if (outcome.errno == EFAULT) != (reach < end) or done != reach - addr:
            raise Finding("access", f"{what} of {addr:#x}-{end:#x}: {outcome.name}, {done} bytes done, and {reach - addr} are allowed")

    def do_write(
        self, who: int, place: list[Any], offset: int, length: int, number: int, force: bool, kind: Any = None, odd: Any = None
    ) -> None:
        subject = self.subject(who)
        space = subject.space
        addr = self.place(space, place) + offset
        data: Any = odds.part(number, offset, length)
        plain: bytes | None = data
        if kind is not None:
            data, plain = odds.buffer([kind], bytes(data))
        what = f"{subject.label}.write"
        if not plain:
            outcome = self.call(what, subject.process.write, addr, data, force=force)
            if plain is None and not isinstance(outcome.error, self.odd_errors):
                raise Finding("argument", f"{what} of {kind}: {outcome.name}")
            return
        self.store(subject, addr, data, plain, force, odd)

    def store(self, subject: Subject, addr: int, data: Any, plain: bytes | None = None, force: bool = False, odd: Any = None) -> None:
        space, plain, what = subject.space, data if plain is None else plain, f"{subject.label}.write"
        asked = self.ask(what, subject.process.write, [addr], "u", {EFAULT, ENOMEM}, odd=odd, gone=space is None, then=(data,), force=force)
        if asked is None or space is None:
            return
        outcome, (addr,) = asked
        end = addr + len(plain)
        done = len(plain) if outcome.error is None else self.done(outcome)
        self.reached(what, outcome, addr, end, space.reach(addr, end, True, force), done)
        if done:
            space.write(addr, plain[:done])

    def do_settle(self, who: int, place: list[Any], pages: int, kinds: int, passes: int) -> None:
        """Write and merge many equal pages, so that later actions have something to unmerge."""
        subject = self.living(who)
        addr = self.place(subject.space, place) & ~MASK
        for i in range(0 if pages > 64 else pages):
            if subject.space is not None and subject.space.allows(addr + i * PAGE, True):
                self.do_write(who, ["at", addr + i * PAGE], 0, PAGE, i % kinds, False)
        if pages > 64:
            self.store(subject, addr, odds.round_robin(kinds, pages))
        self.do_madvise(who, ["at", addr], pages * PAGE, ksm.MADV_MERGEABLE)
        outcome = self.call("m.ksm.scan", self.machine.ksm.scan, passes)
        if not self.closed:
            self.legal("scan", outcome, {ENOMEM} if self.common.short else set())

    def do_read(self, who: int, place: list[Any], offset: int, length: int, force: bool, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        asked = self.ask(f"{subject.label}.read", subject.process.read, [self.place(space, place) + offset, length], "uu", {EFAULT, ENOMEM},
                         odd=odd, gone=space is None and length <= 1 << 46, force=force)  # fmt: skip
        if asked is None or space is None:
            return
        outcome, (addr, length) = asked
        if isinstance(outcome.error, MemoryError):
            return
        end = addr + length
        done = length if outcome.error is None else self.done(outcome) if length <= 1 << 46 else 0
        if length <= 1 << 46:
            self.reached(f"{subject.label}.read", outcome, addr, end, space.reach(addr, end, False, force), done)
        for at in range(addr & ~MASK, end, PAGE) if outcome.error is None and length else ():
            wanted = space.page(at)
            low, high = max(at, addr), min(at + PAGE, end)
            there = outcome.value[low - addr : high - addr]
            if wanted is not None and there != wanted[low - at : high - at]:
                raise Finding(
                    "bytes", f"{subject.label}.read of {low:#x}-{high:#x} is {there[:8].hex()}..., and the page is {digest(wanted)}"
                )

    def do_touch(self, who: int, place: list[Any], offset: int, length: int, write: bool, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        addr = self.place(space, place) + offset
        asked = self.ask(f"{subject.label}.touch", subject.process.touch, [addr], "u", {EFAULT, ENOMEM}, gone=space is None, then=(length,),
                         odd=odd if odd is None or odd[1][0] in ("raises", "none", "object") else None, write=write,
                         others=self.beyond(addr, length))  # fmt: skip
        if asked is None or space is None:
            return
        if isinstance(asked[0].error, ValueError):
            return
        start, end = addr & ~MASK, addr + length
        reach = space.reach(start, end, write)
        if asked[0].errno != ENOMEM and not self.common.poisoned and (asked[0].errno == EFAULT) != (reach < end):
            raise Finding("access", f"{subject.label}.touch of {start:#x}-{end:#x}, write={write}: {asked[0].name}")

    def do_update(self, who: int, place: list[Any], number: int, pages: int, odd: Any = None) -> None:
        subject = self.subject(who)
        space = subject.space
        data = odds.content(number, pages)
        if not pages:
            self.call(f"{subject.label}.update", subject.process.update, self.place(space, place), data)
            return
        self.renew(subject, self.place(space, place), data, data, odd if odd is None or odd[1][0] != "value" else None)

    def renew(self, subject: Subject, addr: int, given: Any, data: bytes, odd: Any = None) -> None:
        """update() with what is given, which has these bytes: whole pages."""
        space, what, pages = subject.space, f"{subject.label}.update", len(data) // PAGE
        asked = self.ask(what, subject.process.update, [addr], "u", {EFAULT, ENOMEM}, then=(given,), odd=odd, gone=space is None,
                         others=(ValueError,))  # fmt: skip
        if asked is None or space is None:
            return
        outcome, (addr,) = asked
        if addr & MASK:
            if not isinstance(outcome.error, ValueError):
                raise Finding("argument", f"{what} at {addr:#x}: {outcome.name}")
            return
        end = addr + len(data)
        reach = space.reach(addr, end, True)
        if outcome.error is None:
            self.reached(what, outcome, addr, end, reach, len(data))
            # A page that is not known (None) may hold anything, even what is to be written.
            differ = sum(space.page(addr + i) not in (None, data[i : i + PAGE]) for i in range(0, len(data), PAGE))
            if not differ <= outcome.value <= pages:
                raise Finding("update", f"{outcome.value} pages changed, and {differ} of {pages} differ")
            space.write(addr, data)
        elif outcome.errno == EFAULT and not self.common.poisoned:
            self.reached(what, outcome, addr, end, reach, reach - addr)
            space.write(addr, data[: reach - addr])
        else:
            self.either(subject, addr, data[: reach - addr])

    def either(self, subject: Subject, addr: int, data: bytes) -> None:
        """A write ended half way, and does not say where: each page is the old one or the new one."""
        assert subject.space is not None
        for at in range(0, len(data), PAGE):
            outcome = self.call(f"{subject.label}.read", subject.process.read, addr + at, PAGE, force=True)
            old, new = subject.space.page(addr + at), data[at : at + PAGE]
            if outcome.error is None and old is not None and outcome.value not in (old, new):
                raise Finding("bytes", f"{subject.label}: the page at {addr + at:#x} is neither what it was nor what was to be written")
            subject.space.store(addr + at, outcome.value if outcome.error is None else None)


def vma_part(space: Space, start: int, end: int) -> Area | None:
    area = space.find(start)
    return area.part(start, end) if area is not None and end > start else None


__all__ = ["BASE", "ZEROS", "Memory"]
