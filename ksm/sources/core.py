# SPDX-License-Identifier: GPL-2.0-only
"""An ELF core: a process as gcore or the kernel writes it, or a whole machine (QEMU's dump-guest-memory, /proc/vmcore, makedumpfile -E).

Which pages of a core KSM would look at:

- of a machine: all of its physical memory. Such a core has a note of QEMU, VirtualBox or the kernel (VMCOREINFO). /proc/vmcore holds
  the kernel's own text twice, under two virtual addresses; by physical address it counts once.
- of a process: its private anonymous pages. A core does not say which those are, but NT_FILE lists the mapped files. Of a mapping of a
  file that cannot be written, the pages are page cache, which KSM leaves alone (a few, patched when the program was loaded, are not).
  Shared memory shows as a file with one of a few names. The rest counts, and so does what is left of .data and .bss.

Memory without bytes in the file (p_filesz below p_memsz), and holes of the file, are absent pages. gcore writes pages that the process
has never touched as zeros: nothing can be done about those.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from elftools.elf.elffile import ELFFile

from ksm.constants import PAGE_SIZE
from ksm.host.files import data_extents
from ksm.sources.base import SourceError
from ksm.sources.extents import Extent, FileSource, without_holes

WHOLE_MACHINE = {"QEMU", "VMCOREINFO", "VBCORE"}
SHARED_MEMORY = ("/dev/zero (deleted)", "/SYSV", "/dev/shm/", "/memfd:", "/[aio]")

AT_SYSINFO_EHDR = 33
MANY = 0xFFFF  # PN_XNUM: more segments than the header can say
KERNEL_HALF = 1 << 63  # vsyscall, the only thing of a process up there


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


def open_core(name: str, fd: int, size: int) -> FileSource:
    """The source; takes over the descriptor."""
    try:
        with os.fdopen(fd, "rb", closefd=False) as file:
            core = read_core(name, file, size)
    except SourceError:
        raise
    except Exception:
        # pyelftools stumbles over damaged files in many ways: ELFError, construct's, KeyError, UnicodeDecodeError, ...
        # What it says speaks of its own insides.
        raise SourceError(f"{name}: damaged ELF core") from None
    if not core.segments:
        raise SourceError(f"{name}: an ELF core without memory")

    remarks: list[str] = []
    segments = flatten(core.segments)
    if core.notes.machine:
        twice = pages(core.segments) - pages(segments)
        if twice:
            remarks.append(f"pages that the core holds twice and that count once: {twice:,}")
    else:
        kept = list(process_memory(segments, core.notes))
        files = pages(segments) - pages(kept)
        if files:
            remarks.append(f"left out {files:,} pages of mapped files and shared memory, which KSM would not merge")
        if core.notes.gdb:
            remarks.append("gdb writes pages that were never touched as zeros: there may be fewer zero pages in truth")
        segments = kept
    extents = [Extent(segment.offset, segment.end - segment.start) for segment in segments]
    source = FileSource(name, "core", fd, without_holes(extents, data_extents(fd, size)))
    source.notes += remarks
    return source


def pages(segments: list[Segment]) -> int:
    return sum(segment.end - segment.start for segment in segments) // PAGE_SIZE


def truncated(name: str, size: int, wanted: int) -> SourceError:
    return SourceError(f"{name}: truncated: the file has {size:,} bytes, and should have {wanted:,} at least")


def check_tables(name: str, file: BinaryIO, size: int) -> None:
    """Whether the file reaches as far as its header and its tables of segments and sections: gdb writes the latter last."""
    head = file.read(64)
    file.seek(0)
    if len(head) < 6 or head[4] not in (1, 2):
        return
    wide = head[4] == 2
    header = struct.Struct((">" if head[5] == 2 else "<") + ("24x8x2Q4x2x4H2x" if wide else "24x4x2I4x2x4H2x"))
    if len(head) < header.size:
        raise truncated(name, size, header.size)
    segments, sections, segment, number, section, count = header.unpack_from(head)
    if number == MANY:
        # The real number is in the first section.
        count = max(count, 1)
        number = 0
    wanted = max(segments + number * segment, sections + count * section if count else 0)
    if wanted > size:
        raise truncated(name, size, wanted)


def read_core(name: str, file: BinaryIO, size: int) -> Core:
    """The segments in whole pages, by physical address for a machine, and the notes."""
    check_tables(name, file, size)
    elf = ELFFile(file)
    kind = elf.header["e_type"]
    if kind != "ET_CORE":
        what = {"ET_EXEC": "a program", "ET_DYN": "a program or a shared library", "ET_REL": "an object file"}.get(kind, "another kind")
        raise SourceError(f"{name}: not memory, but {what} in ELF format")
    notes = read_notes(elf)
    segments = []
    for segment in elf.iter_segments():
        header = segment.header
        if header["p_type"] != "PT_LOAD" or not header["p_filesz"]:
            continue
        offset, length = header["p_offset"], header["p_filesz"]
        if offset + length > size:
            raise truncated(name, size, offset + length)
        addr = header["p_paddr"] if notes.machine else header["p_vaddr"]
        start = -(-addr // PAGE_SIZE) * PAGE_SIZE
        end = (addr + length) // PAGE_SIZE * PAGE_SIZE
        if start < end:
            segments.append(Segment(start, end, offset + start - addr, bool(header["p_flags"] & 2)))
    return Core(segments, notes)


def read_notes(elf: ELFFile) -> Notes:
    machine = gdb = False
    vdso = 0
    files: list[MappedFile] = []
    for segment in elf.iter_segments("PT_NOTE"):
        for note in segment.iter_notes():
            owner, kind, data = note["n_name"], note["n_type"], note["n_desc"]
            machine = machine or owner in WHOLE_MACHINE
            gdb = gdb or owner == "GDB"
            if kind == "NT_FILE":
                for entry, path in zip(data["Elf_Nt_File_Entry"], data["filename"], strict=False):
                    files.append(MappedFile(entry["vm_start"], entry["vm_end"], path.decode(errors="replace")))
            elif kind == "NT_AUXV":
                vdso = vdso_address(elf, data)
    return Notes(machine, gdb, sorted(files), vdso)


def vdso_address(elf: ELFFile, auxv: bytes) -> int:
    """Where the kernel's vdso is mapped; 0 if the auxiliary vector does not say."""
    pair = struct.Struct(("<" if elf.little_endian else ">") + ("2I" if elf.elfclass == 32 else "2Q"))
    return dict(pair.iter_unpack(auxv[: len(auxv) // pair.size * pair.size])).get(AT_SYSINFO_EHDR, 0)


def flatten(segments: list[Segment]) -> list[Segment]:
    """By ascending address; where segments overlap, the first one has the memory."""
    result: list[Segment] = []
    done = 0
    for segment in sorted(segments):
        start = max(segment.start, done)
        if start < segment.end:
            result.append(segment.cut(start, segment.end))
            done = segment.end
    return result


def process_memory(segments: list[Segment], notes: Notes) -> Iterator[Segment]:
    """What of a process's segments is private anonymous memory, as far as one can tell. All come by ascending address."""
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
