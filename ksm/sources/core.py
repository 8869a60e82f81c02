# SPDX-License-Identifier: GPL-2.0-only
"""An ELF core: a process as gcore or the kernel writes it, or a whole machine (QEMU's dump-guest-memory, /proc/vmcore, makedumpfile -E).

Which pages of a core KSM would look at:

- of a machine: all of its physical memory. Such a core has a note of QEMU, VirtualBox or the kernel (VMCOREINFO). /proc/vmcore holds
  the kernel's own text twice, under two virtual addresses; by physical address it counts once.
- of a process: its private anonymous pages. A core does not say which those are, but NT_FILE lists the mapped files. The pages of a
  read-only mapping of a file are page cache, which KSM leaves alone (except a few that were patched when the program was loaded).
  Shared memory is listed as a file with one of a few names. All other pages count, those of .data and .bss included.

Memory without bytes in the file (p_filesz below p_memsz) is absent. A hole of the file is absent where the kernel has written a process's
core: it leaves one for pages that the process has never touched. In other cores a hole stands for pages of zeros. gcore, and the kernel
through a pipe, write pages that were never touched as zeros: such a core does not tell them from real pages of zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.host.holes import data_extents
from ksm.sources.base import Source, SourceError
from ksm.sources.extents import Extent, ExtentStream, FileSource
from ksm.sources.input import Holes, Input
from ksm.sources.parts import FileParts, InputParts, Parts

WHOLE_MACHINE = {b"QEMU", b"VMCOREINFO", b"VBCORE"}
SHARED_MEMORY = ("/dev/zero (deleted)", "/SYSV", "/dev/shm/", "/memfd:", "/[aio]")

ET_CORE = 4
OTHERS = {1: "an object file", 2: "a program", 3: "a program or a shared library"}  # e_type
PT_LOAD, PT_NOTE = 1, 4
PF_W = 2
PN_XNUM = 0xFFFF  # more segments than the header can count: their number is in the first section
NT_AUXV, NT_FILE = 6, 0x46494C45
AT_SYSINFO_EHDR = 33
KERNEL_HALF = 1 << 63  # from here on a process has only vsyscall

# Limits of a core. The kernel writes a segment for each mapping, and a process has 65,530 mappings at most unless vm.max_map_count was
# raised. It writes a handful of notes for each thread. Its list of mapped files has 16 MiB at most: CORE_FILE_NOTE_SIZE_MAX in
# fs/coredump.c.
MOST_SEGMENTS = 1 << 20
MOST_NOTES = 1 << 20
MOST_READ = 16 << 20  # bytes of such lists, and of auxiliary vectors

# The structures of both classes of ELF files, without the byte order: Elf32_Ehdr from e_type on, and so on.
HEADER = {32: "16x2HI3II6H", 64: "16x2HI3QI6H"}
SEGMENT = {32: "8I", 64: "2I6Q"}
SECTION = {32: "10I", 64: "2I4Q2I2Q"}
WORD = {32: "I", 64: "Q"}
NOTE = "3I"
OWNER = 16  # bytes of a note's owner that are looked at


class Segment(NamedTuple):
    """A part of memory that has bytes in the file."""

    start: int
    end: int
    offset: int
    writable: bool

    def cut(self, start: int, end: int) -> Segment:
        return Segment(start, end, self.offset + start - self.start, self.writable)


class MappedFile(NamedTuple):
    start: int
    end: int
    path: str


class Notes(NamedTuple):
    """What the notes of a core say."""

    machine: bool  # physical memory
    gdb: bool
    files: list[MappedFile]
    vdso: int


class Core(NamedTuple):
    segments: list[Segment]
    notes: Notes
    absent: int  # pages of memory that have no bytes in the file
    needed: int  # bytes that the file has to have


class Layout(NamedTuple):
    """How an ELF file is written."""

    order: str  # "<" or ">"
    bits: int  # 32 or 64

    def struct(self, formats: dict[int, str]) -> struct.Struct:
        return struct.Struct(self.order + formats[self.bits])


def open_core(input: Input) -> Source:
    """The source of an ELF core: of the file itself, or of what comes unpacked or through a pipe, which is read from front to back."""
    file = input.plain()
    if file is not None:
        return source_of(read_core(FileParts(input.name, *file)), input, None)
    parts = InputParts(input)
    try:
        return source_of(read_core(parts), input, parts)
    except BaseException:
        parts.input.close()
        raise


def source_of(core: Core, input: Input, stream: InputParts | None) -> Source:
    """The source of a core: of a file, or of what is read from front to back."""
    name = input.name
    file = input.plain()
    if not core.segments:
        raise SourceError(f"{name}: an ELF core without memory")
    remarks: list[str] = []
    segments = flatten(core.segments)
    if file is not None and pages(segments) * PAGE_SIZE > file[1]:
        raise damaged(name, f"{pages(segments):,} pages of memory in a file of {file[1]:,} bytes")
    if core.notes.machine:
        twice = pages(core.segments) - pages(segments)
        if twice:
            remarks.append(f"pages that the core holds twice and that count once: {twice:,}")
        if core.absent:
            remarks.append(f"left out {core.absent:,} pages that are not in the dump")
    else:
        kept = list(process_memory(segments, core.notes))
        files = pages(segments) - pages(kept)
        if files:
            remarks.append(f"left out {files:,} pages of mapped files and shared memory, which KSM would not merge")
        if core.notes.gdb:
            remarks.append("gdb writes pages that were never touched as zeros")
        segments = kept
    extents = [Extent(segment.offset, segment.end - segment.start, segment.start) for segment in segments]
    source: Source
    if file is not None:
        fd, size = file
        # The kernel leaves holes for what the process has never touched. Others only leave out zeros, as cp --sparse and unzstd do.
        by_format: Holes = "zeros" if core.notes.machine or core.notes.gdb else "absent"
        source = FileSource(name, "core", fd, extents, data_extents(fd, size), input.holes or by_format)
        source.zeros_are_real = by_format == "absent" and source.holes > 0
    else:
        assert stream is not None
        if extents:
            stream.go(min(extents).offset)  # gdb writes its notes last: then all of it is read again
        source = ExtentStream(stream.input, "core", extents, core.needed)
        if not core.notes.machine and not core.notes.gdb:
            remarks.append("on its way, what was never touched has become zeros")
    if core.notes.machine:
        source.holes += core.absent
    source.notes += remarks
    return source


def pages(segments: list[Segment]) -> int:
    return sum(segment.end - segment.start for segment in segments) // PAGE_SIZE


def damaged(name: str, what: str = "") -> SourceError:
    return SourceError(f"{name}: damaged ELF core" + (f": {what}" if what else ""))


def read_core(parts: Parts) -> Core:
    """The segments, cut to whole pages, and the notes. A machine's segments have physical addresses, a process's virtual ones."""
    layout, table, needed = read_header(parts)
    headers = []
    for header in layout.struct(SEGMENT).iter_unpack(table):
        if layout.bits == 64:
            kind, flags, offset, virtual, physical, length, memory, _ = header
        else:
            kind, offset, virtual, physical, length, memory, flags, _ = header
        if kind in (PT_LOAD, PT_NOTE) and (length or memory):
            parts.whole(offset + length)
            needed = max(needed, offset + length)
            headers.append((kind, flags, offset, virtual, physical, length, memory))
    places = [(offset, length) for kind, _, offset, _, _, length, _ in headers if kind == PT_NOTE and length]
    notes = read_notes(parts, layout, sorted(places))
    segments = []
    absent = 0
    for kind, flags, offset, virtual, physical, length, memory in headers:
        if kind != PT_LOAD:
            continue
        addr = physical if notes.machine else virtual
        start = -(-addr // PAGE_SIZE) * PAGE_SIZE
        end = (addr + length) // PAGE_SIZE * PAGE_SIZE
        absent += max(0, (addr + memory) // PAGE_SIZE * PAGE_SIZE - max(start, end)) // PAGE_SIZE
        if start < end:
            segments.append(Segment(start, end, offset + start - addr, bool(flags & PF_W)))
    return Core(segments, notes, absent, needed)


def read_header(parts: Parts) -> tuple[Layout, bytes, int]:
    """How the file is written, its table of segments, and how long the file has to be for its tables.

    The table of sections, which gdb writes last, must be whole too.
    """
    name = parts.name
    head = parts.part(0, 64, fewer=True)
    if len(head) < 6:
        raise truncated(parts, len(head), struct.calcsize("<" + HEADER[32]))
    if head[4] not in (1, 2) or head[5] not in (1, 2):
        raise damaged(name)
    layout = Layout("<>"[head[5] - 1], 32 * head[4])
    header, segment, section = (layout.struct(each) for each in (HEADER, SEGMENT, SECTION))
    if len(head) < header.size:
        raise truncated(parts, len(head), header.size)
    kind, _, _, _, segments, sections, _, _, segment_size, number, section_size, section_number, _ = header.unpack_from(head)
    if kind != ET_CORE:
        raise SourceError(f"{name}: not memory, but {OTHERS.get(kind, 'another kind')} in ELF format")
    if number == PN_XNUM:
        if not sections:
            raise damaged(name)
        number = section.unpack(parts.part(sections, section.size))[7]
        section_number = max(section_number, 1)
    needed = max(segments + number * segment_size, sections + section_number * section_size if section_number else 0)
    parts.whole(needed)
    if number and segment_size != segment.size:
        raise damaged(name)
    if number > MOST_SEGMENTS:
        raise damaged(name, f"{number:,} segments, and {MOST_SEGMENTS:,} are the most that are read")
    return layout, parts.part(segments, number * segment.size), needed


def truncated(parts: Parts, length: int, wanted: int) -> SourceError:
    return SourceError(f"{parts.name}: truncated: the file has {length:,} bytes, and should have {wanted:,} at least")


def walk_notes(parts: Parts, layout: Layout, places: list[tuple[int, int]]) -> Iterator[tuple[bytes, int, int, int]]:
    """Of each note: owner, type, offset and length of its data. Zeros end a segment of notes, as they do for the kernel."""
    header = struct.Struct(layout.order + NOTE)
    count = 0
    for start, length in places:
        at, end = start, start + length
        while at + header.size <= end:
            head = parts.part(at, min(header.size + OWNER, end - at))
            owner_length, data_length, kind = header.unpack_from(head)
            if not (owner_length or data_length or kind):
                break
            data = at + header.size + -(-owner_length // 4) * 4
            if data + data_length > end:
                raise damaged(parts.name, "a note is longer than its segment")
            count += 1
            if count > MOST_NOTES:
                raise damaged(parts.name, f"more than {MOST_NOTES:,} notes")
            yield head[header.size : header.size + owner_length].partition(b"\0")[0], kind, data, data_length
            at = data + -(-data_length // 4) * 4


def read_notes(parts: Parts, layout: Layout, places: list[tuple[int, int]]) -> Notes:
    """What the notes say. The files are sorted by address and do not overlap."""
    machine = gdb = False
    vdso = 0
    files: list[MappedFile] = []
    room = MOST_READ
    for owner, kind, offset, length in walk_notes(parts, layout, places):
        machine = machine or owner in WHOLE_MACHINE
        gdb = gdb or owner == b"GDB"
        if owner == b"CORE" and kind in (NT_FILE, NT_AUXV):
            room -= length
            if room < 0:
                raise damaged(parts.name, f"lists of mapped files of more than {MOST_READ >> 20} MiB")
            data = parts.part(offset, length)
            if kind == NT_FILE:
                files += mapped_files(parts.name, layout, data)
            else:
                vdso = vdso_address(layout, data)
    return Notes(machine, gdb, without_overlaps(files), vdso)


def mapped_files(name: str, layout: Layout, data: bytes) -> Iterator[MappedFile]:
    """The files of NT_FILE: their number, the size of a page, (start, end, offset) of each, then the names, each ended by a NUL."""
    two, three = (struct.Struct(layout.order + number * WORD[layout.bits]) for number in (2, 3))
    if len(data) < two.size:
        raise damaged(name, "a list of mapped files that is cut off")
    count, _ = two.unpack_from(data)
    names_at = two.size + count * three.size
    *names, _ = data[names_at:].split(b"\0", count) if names_at <= len(data) else [b""]
    if len(names) < count:
        raise damaged(name, "a list of mapped files that is cut off")
    for (start, end, _), path in zip(three.iter_unpack(data[two.size : names_at]), names, strict=True):
        # Whole pages are a file's. The kernel writes no others.
        yield MappedFile(start // PAGE_SIZE * PAGE_SIZE, -(-end // PAGE_SIZE) * PAGE_SIZE, path.decode(errors="replace"))


def without_overlaps(files: list[MappedFile]) -> list[MappedFile]:
    """The files, sorted by address. Where two overlap, which no kernel writes, the first one has the memory."""
    result: list[MappedFile] = []
    done = 0
    for start, end, path in sorted(files):
        if max(start, done) < end:
            result.append(MappedFile(max(start, done), end, path))
            done = end
    return result


def vdso_address(layout: Layout, auxv: bytes) -> int:
    """Where the kernel's vdso is mapped; 0 if the auxiliary vector does not say."""
    pair = struct.Struct(layout.order + 2 * WORD[layout.bits])
    entries: dict[int, int] = dict(pair.iter_unpack(auxv[: len(auxv) // pair.size * pair.size]))
    return entries.get(AT_SYSINFO_EHDR, 0)


def flatten(segments: list[Segment]) -> list[Segment]:
    """The segments, sorted by address. Where two overlap, the first one has the memory."""
    result: list[Segment] = []
    done = 0
    for segment in sorted(segments):
        start = max(segment.start, done)
        if start < segment.end:
            result.append(segment.cut(start, segment.end))
            done = segment.end
    return result


def process_memory(segments: list[Segment], notes: Notes) -> Iterator[Segment]:
    """The parts of a process's segments that are private anonymous memory, as far as a core tells. Segments are sorted by address."""
    first = 0
    for segment in segments:
        if segment.start >= KERNEL_HALF or segment.start <= notes.vdso < segment.end:
            continue
        while first < len(notes.files) and notes.files[first].end <= segment.start:
            first += 1
        start, place = segment.start, first
        while place < len(notes.files) and notes.files[place].start < segment.end:
            file = notes.files[place]
            place += 1
            if segment.writable and not file.path.startswith(SHARED_MEMORY):
                continue
            if start < file.start:
                yield segment.cut(start, file.start)
            start = max(start, file.end)
        if start < segment.end:
            yield segment.cut(start, segment.end)
