# SPDX-License-Identifier: GPL-2.0-only
"""Dumps that the tests write themselves, each from the description of its format. Memory is a dictionary: number of a page, its bytes."""

import random
import struct
import zlib
from pathlib import Path

from cores import note

PAGE = 4096
MIB = 1 << 20
BLOCK = 2 * MIB
ZEROS = bytes(PAGE)

Memory = dict[int, bytes]


def some_memory(seed: int, pages: int = 600, *, first: int = 0, gaps: bool = True) -> Memory:
    """Pages of zeros, of few contents and of a content of their own; gaps between them."""
    draw = random.Random(seed)
    memory: Memory = {}
    at = first
    while len(memory) < pages:
        if gaps and draw.random() < 0.02:
            at += draw.choice((1, 3, 700))
        for _ in range(draw.choice((1, 1, 5, 40, 300))):
            kind = draw.random()
            content = 0 if kind < 0.3 else draw.randrange(1, 20) if kind < 0.7 else at + 1000
            memory[at] = content.to_bytes(8, "big") * (PAGE // 8)
            at += 1
    return memory


def runs(memory: Memory) -> list[tuple[int, bytes]]:
    """(first page, bytes) of neighbouring pages."""
    result: list[tuple[int, bytearray]] = []
    end = -1
    for number, page in sorted(memory.items()):
        if number != end:
            result.append((number, bytearray()))
        result[-1][1].extend(page)
        end = number + 1
    return [(first, bytes(data)) for first, data in result]


def write_image(path: Path, memory: Memory) -> Path:
    """A raw image with a hole for each page that is absent. The pages of zeros are written."""
    with path.open("wb") as file:
        for number, page in memory.items():
            file.seek(number * PAGE)
            file.write(page)
    return path


# LiME and AVML

def lime_range(first: int, data: bytes, magic: bytes = b"EMiL", version: int = 1) -> bytes:
    return struct.pack("<4sI2Q8x", magic, version, first, first + len(data) - 1) + data


def lime(memory: Memory) -> bytes:
    return b"".join(lime_range(first * PAGE, data) for first, data in runs(memory))


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def avml(memory: Memory) -> bytes:
    import cramjam

    result = b""
    for first, data in runs(memory):
        packed = bytes(cramjam.snappy.compress(data))
        header = struct.pack("<4sI2Q8x", b"AVML", 2, first * PAGE, first * PAGE + len(data) - 1)
        result += header + packed + struct.pack("<Q", len(packed))
    return result


# QEMU

def qemu_configuration(name: str = "pc-q35-9.0", capabilities: tuple[str, ...] = (), page_bits: int = 0) -> bytes:
    data = b"\7" + struct.pack(">I", len(name)) + name.encode()
    if page_bits:
        data += subsection("configuration/target-page-bits") + struct.pack(">I", page_bits)
    if capabilities:
        data += subsection("configuration/capabilities") + struct.pack(">I", len(capabilities))
        data += b"".join(bytes([len(each)]) + each.encode() for each in capabilities)
    return data


def subsection(name: str) -> bytes:
    return b"\5" + bytes([len(name)]) + name.encode() + struct.pack(">I", 1)


def section(kind: int, number: int, name: str = "", version: int = 4) -> bytes:
    data = bytes([kind]) + struct.pack(">I", number)
    return data + bytes([len(name)]) + name.encode() + struct.pack(">2I", 0, version) if name else data


def footer(number: int) -> bytes:
    return b"\x7e" + struct.pack(">I", number)


def word(value: int) -> bytes:
    return struct.pack(">Q", value)


ZERO, MEM_SIZE, PLAIN, EOS, CONTINUE, COMPRESSED = 2, 4, 8, 16, 32, 256


class Stream:
    """A migration stream. `blocks` are (name, bytes); pages are sent by page()."""

    def __init__(self, blocks: list[tuple[str, int]], capabilities: tuple[str, ...] = (), before: bytes = b"") -> None:
        self.data = bytearray(b"QEVM" + struct.pack(">I", 3) + qemu_configuration(capabilities=capabilities) + before)
        self.data += section(1, 2, "ram") + word(sum(length for _, length in blocks) | MEM_SIZE)
        for name, length in blocks:
            self.data += bytes([len(name)]) + name.encode() + word(length)
        self.last = ""

    def begin(self, kind: int) -> None:
        """End the section and begin another one."""
        self.data += word(EOS) + footer(2) + section(kind, 2)

    def page(self, block: str, number: int, page: bytes, *, compress: bool = False) -> None:
        flags = COMPRESSED if compress else ZERO if page == page[:1] * PAGE and not any(page) else PLAIN
        if block == self.last:
            flags |= CONTINUE
        self.data += word(number * PAGE | flags)
        if block != self.last:
            self.data += bytes([len(block)]) + block.encode()
            self.last = block
        if compress:
            packed = zlib.compress(page, 1)
            self.data += struct.pack(">I", len(packed)) + packed
        else:
            self.data += b"\0" if flags & ZERO else page

    def end(self) -> bytes:
        """The stream, with sections of devices behind its memory."""
        return bytes(self.data + word(EOS) + footer(2) + section(4, 3, "timer") + b"what no reader knows" + footer(3) + b"\0")


def qemu(memory: Memory, block: str = "pc.ram", *, length: int = 0, compress: bool = False) -> bytes:
    """A stream of one block, and a small one."""
    length = length or (max(memory) + 1) * PAGE
    stream = Stream([(block, length), ("pc.rom", PAGE)])
    for at, (number, page) in enumerate(sorted(memory.items())):
        if at == len(memory) // 3:
            stream.begin(2)
        stream.page(block, number, page, compress=compress and at % 2 == 1)
    stream.begin(3)
    return stream.end()


def mapped_ram(blocks: list[tuple[str, int, Memory]], before: bytes = b"", shift: int = 0) -> bytes:
    """A stream with mapped-ram. Pages that are in no memory are zeros. `before` is what the file has before the stream."""
    data = bytearray(before + b"QEVM" + struct.pack(">I", 3) + qemu_configuration(capabilities=("mapped-ram",)))
    data += section(1, 2, "ram") + word(sum(length for _, length, _ in blocks) | MEM_SIZE)
    for name, length, memory in blocks:
        data += bytes([len(name)]) + name.encode() + word(length)
        bitmap_at = len(data) + 28
        bitmap = bytearray(-(-length // PAGE // 64) * 8)
        for number, page in memory.items():
            bitmap[number // 8] |= (page != ZEROS) << number % 8
        pages_at = -(-(bitmap_at + len(bitmap)) // MIB) * MIB
        data += struct.pack(">I3Q", 1, PAGE, bitmap_at - shift, pages_at - shift) + bitmap
        data += bytes(pages_at - len(data) + length)
        for number, page in memory.items():
            data[pages_at + number * PAGE : pages_at + (number + 1) * PAGE] = page
    data += word(EOS) + footer(2) + section(3, 2) + word(EOS) + footer(2)
    return bytes(data + section(4, 3, "timer") + b"what no reader knows" + footer(3) + b"\0")


def libvirt(stream: bytes, form: int = 0, *, xml: bytes = b"<domain/>\0", order: str = "<") -> bytes:
    return struct.pack(order + "16s19I", b"LibvirtQemudSave", 2, len(xml), 1, form, *[0] * 15) + xml + stream


# Windows

def windows_header(kind: int, bits: int = 64, pages: list[tuple[int, int]] | None = None) -> bytearray:
    header = bytearray(b"PAGE" * (0x2000 // 4 if bits == 64 else 0x1000 // 4))
    header[:8] = b"PAGEDU64" if bits == 64 else b"PAGEDUMP"
    struct.pack_into("<I", header, 0xF98 if bits == 64 else 0xF88, kind)
    if pages:
        total = sum(count for _, count in pages)
        if bits == 64:
            struct.pack_into("<IIQ", header, 0x88, len(pages), 0, total)
        else:
            struct.pack_into("<2I", header, 0x64, len(pages), total)
        for place, run in enumerate(pages):
            if bits == 64:
                struct.pack_into("<2Q", header, 0x98 + place * 16, *run)
            else:
                struct.pack_into("<2I", header, 0x6C + place * 8, *run)
    return header


def windows_complete(memory: Memory, bits: int = 64) -> bytes:
    parts = runs(memory)
    header = windows_header(1, bits, [(first, len(data) // PAGE) for first, data in parts])
    return bytes(header) + b"".join(data for _, data in parts)


def windows_bitmap(memory: Memory, bits: int = 64, *, kind: int = 5, magic: bytes = b"FDMP") -> bytes:
    header = bytes(windows_header(kind, bits))
    pages = max(memory) + 20
    bitmap = bytearray((pages + 7) // 8)
    for number in memory:
        bitmap[number // 8] |= 1 << number % 8
    first_page = -(-(len(header) + 0x38 + len(bitmap)) // PAGE) * PAGE
    data = header + struct.pack("<4s4s24x3Q", magic, b"DUMP", first_page, len(memory), pages) + bytes(bitmap)
    return data + bytes(first_page - len(data)) + b"".join(page for _, page in sorted(memory.items()))


def windows_table(memory: Memory, kind: int = 10) -> bytes:
    header = bytes(windows_header(kind))
    parts = runs(memory)
    table = b"".join(struct.pack("<2Q", first, len(data) // PAGE) for first, data in parts) + bytes(64)
    first_page = 0x2030 + len(table)
    total = len(memory) if kind == 10 else 0
    data = header + struct.pack("<I4s4s4x2QI4xQ", 0x40, b"RDMP", b"DUMP", first_page - 0x2020, first_page, len(parts), total) + table
    return data + b"".join(data for _, data in parts)


# Xen

def xen(memory: Memory, *, gone: int = 0, words: int = 1) -> bytes:
    """A core of xl dump-core; the last `gone` pages went while it was written."""
    names = b"\0.shstrtab\0.note.Xen\0.xen_pages\0" + (b".xen_pfn\0" if words == 1 else b".xen_p2m\0")
    numbers = [*sorted(memory), *[(1 << 64) - 1] * gone]
    pages = b"".join(page for _, page in sorted(memory.items())) + bytes(gone * PAGE)
    table = b"".join(struct.pack(f"<{words}Q", *[number] * words) for number in numbers)
    notes = note("Xen", 0x2000001, struct.pack("<4Q", 0xF00FEBEE, 1, len(numbers), PAGE))
    head = 64 + 5 * 64
    at = -(-(head + len(notes)) // PAGE) * PAGE
    places = [(0, 0, b"", 0), (3, names.index(b".shstrtab"), names, at + len(pages) + len(table)), (7, names.index(b".note"), notes, head),
              (1, names.index(b".xen_pages"), pages, at), (1, names.index(b".xen_p", 32), table, at + len(pages))]
    elf = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI3QI6H", 4, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 5, 1)
    for kind, name, data, offset in places:
        elf += struct.pack("<2I4Q2I2Q", name, kind, 0, 0, offset, len(data), 0, 0, 0, 0)
    return elf + notes + bytes(at - head - len(notes)) + pages + table + names


# CRIU

def varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(data) + bytes([value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += varint(number << 3) + varint(value)
        else:
            data += varint(number << 3 | 2) + varint(len(value)) + value
    return data


def criu_image(magic: int, *messages: bytes) -> bytes:
    return struct.pack("<2I", 0x54564319, magic) + b"".join(struct.pack("<I", len(each)) + each for each in messages)


ANON, FILE, SHARED, VDSO = 1 | 1 << 9, 1 | 1 << 6, 1 | 1 << 8, 1 | 1 << 3 | 1 << 9


Entries = list[tuple[int, int, bytes | None]]  # address, pages, their bytes, or None if they are in the parent


def criu_images(pages_id: int, entries: Entries, vmas: list[tuple[int, int, int]], *, old: bool = False) -> tuple[bytes, bytes]:
    """pagemap-N.img and mm-N.img of a process; vmas are (start, end, status)."""
    messages = [message((1, pages_id))]
    for address, pages, data in entries:
        if old:
            messages.append(message((1, address), (2, pages), *([(3, 1)] if data is None else [])))
        else:
            messages.append(message((1, address), (2, 0), (4, 1 if data is None else 4), (5, pages)))
    fields = [(14, message((1, start), (2, end), (3, 0), (4, 0), (5, 3), (6, 0x22), (7, status), (8, (1 << 64) - 1)))
              for start, end, status in vmas]
    return criu_image(0x56084025, *messages), criu_image(0x57492820, message((1, 0x400000), *fields))


def criu_process(
    folder: Path, pid: int, entries: Entries, vmas: list[tuple[int, int, int]] | None = None, *, old: bool = False, pages_id: int = 0
) -> None:
    """All images of a process."""
    folder.mkdir(exist_ok=True)
    pages_id = pages_id or pid
    pagemap, mappings = criu_images(pages_id, entries, vmas or [], old=old)
    (folder / f"pagemap-{pid}.img").write_bytes(pagemap)
    (folder / f"pages-{pages_id}.img").write_bytes(b"".join(data for _, _, data in entries if data))
    if vmas is not None:
        (folder / f"mm-{pid}.img").write_bytes(mappings)
    (folder / "inventory.img").write_bytes(struct.pack("<I", 0x58313116) + struct.pack("<I", 2) + message((1, 2)))
