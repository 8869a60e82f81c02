# SPDX-License-Identifier: GPL-2.0-only
"""ELF cores that the tests write themselves."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = 4096
PT_LOAD, PT_NOTE = 1, 4
NT_FILE, NT_AUXV = 0x46494C45, 6
AT_SYSINFO_EHDR = 33
READ, WRITE = 4, 2


def page(number: int) -> bytes:
    return number.to_bytes(8, "little") * (PAGE // 8)


def note(owner: str, kind: int, data: bytes) -> bytes:
    name = owner.encode() + b"\0"
    return struct.pack("<3I", len(name), len(data), kind) + name + bytes(-len(name) % 4) + data + bytes(-len(data) % 4)


def files_note(*files: tuple[int, int, str]) -> bytes:
    head = struct.pack("<2Q", len(files), PAGE) + b"".join(struct.pack("<3Q", start, end, 0) for start, end, _ in files)
    return note("CORE", NT_FILE, head + b"".join(path.encode() + b"\0" for _, _, path in files))


def auxv_note(vdso: int) -> bytes:
    return note("CORE", NT_AUXV, struct.pack("<4Q", AT_SYSINFO_EHDR, vdso, 0, 0))


def core_bytes(
    segments: Iterable[Any], notes: bytes = b"", *, odd: int = 0, kind: int = 4, bits: int = 64, xnum: bool = False
) -> bytes:
    """A core of segments (address, data, flags[, memsz]); the data begin `odd` bytes behind a multiple of a page."""
    entry, header, section = (56, 64, 64) if bits == 64 else (32, 52, 40)
    segments = list(segments)
    number = len(segments) + 1
    offset = header + number * entry + (section if xnum else 0)
    headers = [(PT_NOTE, offset, 0, len(notes), 0, 0)]
    body = bytearray(notes)
    for addr, data, flags, *memsz in segments:
        body += bytes(-(offset + len(body)) % PAGE + odd)
        headers.append((PT_LOAD, offset + len(body), addr, len(data), *(memsz or [len(data)]), flags))
        body += data
    elf = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    packed = 0xFFFF if xnum else number
    where = header + number * entry if xnum else 0
    if bits == 64:
        elf += struct.pack("<2HI3QI6H", kind, 62, 1, 0, header, where, 0, header, entry, packed, section, int(xnum), 0)
        elf += b"".join(struct.pack("<2I6Q", t, f, o, a, a, size, mem, PAGE) for t, o, a, size, mem, f in headers)
    else:
        elf += struct.pack("<2HI3II6H", kind, 3, 1, 0, header, where, 0, header, entry, packed, section, int(xnum), 0)
        elf += b"".join(struct.pack("<8I", t, o, a, a, size, mem, f, PAGE) for t, o, a, size, mem, f in headers)
    if xnum:
        elf += struct.pack("<2I4Q2I2Q", 0, 0, 0, 0, 0, 0, 0, number, 0, 0)
    return elf + bytes(body)


def write_core(path: Path, segments: Iterable[Any], notes: bytes = b"", **options: Any) -> Path:
    """A file with core_bytes()."""
    path.write_bytes(core_bytes(segments, notes, **options))
    return path
