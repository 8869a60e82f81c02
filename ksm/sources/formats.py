# SPDX-License-Identifier: GPL-2.0-only
"""What a file is, by its first bytes: who reads it; or that it is not memory, and what to do about it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from ksm.sources.base import Source
    from ksm.sources.input import Input

# How a format is recognised: bytes at an offset, or a function of the first bytes, of which there are input.HEAD
Mark = tuple[int, bytes] | Callable[[bytes], bool]


class Reader(NamedTuple):
    """A format that is read.

    what    what a file of it is
    marks   a file that has one of them is of this format
    opens   "module:function". The function takes an Input at its first byte and gives a Source, which has taken over the input. If it
            raises an error, the input stays the caller's. The module is imported when there is such a file.
    """

    what: str
    marks: tuple[Mark, ...]
    opens: str

    def open(self, input: Input) -> Source:
        source: Source = load(self.opens)(input)
        return source


class Packing(NamedTuple):
    """A form in which files of any format are packed. As Reader, but the function gives an Input, of what is packed."""

    what: str
    marks: tuple[Mark, ...]
    opens: str

    def open(self, input: Input) -> Input:
        unpacked: Input = load(self.opens)(input)
        return unpacked


def load(function: str) -> Any:
    """The function of "module:function"."""
    from importlib import import_module

    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


def is_bzip2(head: bytes) -> bool:
    return head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")


def is_gzip(head: bytes) -> bool:
    """Whether the method is deflate, and no flag is set that nobody has defined."""
    return head[:3] == b"\x1f\x8b\x08" and head[3:4] < b"\x20"


def is_lzma(head: bytes) -> bool:
    """A .lzma file has no magic number. What can be known of its header is: as in xz, and the first byte of the data is always 0."""
    if len(head) < 14 or head[13] or head[0] >= 225:
        return False
    literal_context, literal_position = head[0] % 9, head[0] // 9 % 5
    dictionary, size = (int.from_bytes(head[start:end], "little") for start, end in ((1, 5), (5, 13)))
    power = 1 << max(dictionary.bit_length() - 1, 0)
    return (
        literal_context + literal_position <= 4
        and dictionary >= 4096
        and dictionary in (power, power + power // 2, 0xFFFFFFFF)
        and (size == 0xFFFFFFFFFFFFFFFF or size < 1 << 48)
    )


def is_skippable(head: bytes) -> bool:
    """A frame of zstd and lz4 that holds none of the data."""
    return head[1:4] == b"\x2a\x4d\x18" and head[:1] >= b"\x50" and head[:1] <= b"\x5f"


def after_skippable(head: bytes) -> bytes:
    while is_skippable(head) and len(head) >= 8:
        head = head[8 + int.from_bytes(head[4:8], "little") :]
    return head


def is_lz4(head: bytes) -> bool:
    return after_skippable(head).startswith(b"\x04\x22\x4d\x18")


def is_zstd(head: bytes) -> bool:
    """Also if a skippable frame is longer than what is seen: zstd's are, as pzstd writes them and for seeking."""
    return after_skippable(head).startswith(b"\x28\xb5\x2f\xfd") or (is_skippable(head) and not is_lz4(head))


def is_xen(head: bytes) -> bool:
    """Whether this begins an ELF core that has sections and no segments."""
    if len(head) < 64 or not head.startswith(b"\x7fELF\2"):
        return False
    order: Literal["little", "big"] = "big" if head[5] == 2 else "little"
    kind, segments, sections = (int.from_bytes(head[at : at + 2], order) for at in (16, 56, 60))
    return kind == 4 and not segments and sections > 0


PACKINGS: tuple[Packing, ...] = (
    Packing("gzip", (is_gzip,), "ksm.sources.unpack:gzip"),
    Packing("zstd", (is_zstd,), "ksm.sources.unpack:zstd"),
    Packing("xz", ((0, b"\xfd7zXZ\0"),), "ksm.sources.unpack:xz"),
    Packing("bzip2", (is_bzip2,), "ksm.sources.unpack:bzip2"),
    Packing("lz4", (is_lz4,), "ksm.sources.unpack:lz4"),
    Packing("lzma", (is_lzma,), "ksm.sources.unpack:lzma"),
    Packing("makedumpfile's flattened form", ((0, b"makedumpfile\0"),), "ksm.sources.flat:rearranged"),
    Packing("snappy", ((0, b"\xff\x06\x00\x00sNaPpY"),), "ksm.sources.unpack:snappy"),
)  # fmt: skip

# The first one that fits reads the file. What none of them knows, and MAGIC does not either, is a raw image.
READERS: tuple[Reader, ...] = (
    Reader("a core of Xen", (is_xen,), "ksm.sources.dumps.xen:open_xen"),
    Reader("an ELF core", ((0, b"\x7fELF"),), "ksm.sources.core:open_core"),
    Reader("a fingerprint file", ((0, b"PAR1"),), "ksm.sources.fingerprints:open_fingerprints"),
    Reader("a migration stream of QEMU", ((0, b"QEVM"),), "ksm.sources.dumps.qemu:open_qemu"),
    Reader("a saved guest of libvirt", ((0, b"LibvirtQemudSave"),), "ksm.sources.dumps.libvirt:open_libvirt"),
    Reader("a dump of LiME or AVML", ((0, b"EMiL"), (0, b"AVML")), "ksm.sources.dumps.lime:open_lime"),
    Reader("a crash dump of Windows", ((0, b"PAGEDU64"), (0, b"PAGEDUMP")), "ksm.sources.dumps.windows:open_windows"),
    Reader("a compressed crash dump", ((0, b"KDUMP   "),), "ksm.sources.kdump:open_kdump"),
)  # fmt: skip

# (offset, bytes there, what it is, what to do)
MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"DISKDUMP", "a crash dump of diskdump, the forerunner of kdump", ""),
    (0, b"MDMP\x93\xa7", "a minidump of Windows, which has only parts of a process", "write a full dump"),
    (0, b"hibr", "a hibernation file of Windows", ""),
    (0, b"HIBR", "a hibernation file of Windows", ""),
    (0, b"wake", "a hibernation file of Windows that was resumed", ""),
    (0, b"WAKE", "a hibernation file of Windows that was resumed", ""),
    (0, b"RSTR", "a hibernation file of Windows that was resumed", ""),
    (0, b"\x14\x20\x28\x01", "a saved state of Hyper-V (.vmrs, .vmcx)", ""),
    (0, b"\x7fVirtualBox SavedState", "a saved state of VirtualBox (.sav)", "use VBoxManage debugvm NAME dumpvmcore"),
    *((0, magic, "a state of VMware (.vmss, .vmsn)", "scan the .vmem beside it") for magic in (
        b"\xd0\xbe\xd0\xbe", b"\xd1\xbe\xd1\xbe", b"\xd0\xbe\xd2\xbe", b"\xd2\xbe\xd2\xbe", b"\xd3\xbe\xd3\xbe",
        b"\xd1\xba\xd1\xba", b"\xd2\xba\xd2\xba",
    )),
    *((0, magic, "a saved domain of Xen", "use xl dump-core") for magic in (
        b"XenSavedDom", b"Xen saved domain", b"LinuxGuestRecord", b"QemuDeviceModelRecord",
    )),
    *((0, magic, "an image of CRIU", "name the folder that it is in") for magic in (
        b"\x19\x43\x56\x54", b"\x40\x59\x10\x55", b"\x16\x31\x31\x58",
    )),
    (0, b"minidump FreeBSD", "a minidump of FreeBSD's kernel", ""),
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EnCase image", "make a raw image of it"),
    (0, b"HPAK", "an archive of FastDump", ""),
    (0, b"LibvirtQemudPart", "an unfinished saved guest of libvirt", "use virsh dump --memory-only"),
    (0, b"QFI\xfb", "a qcow2 disk image", "qemu-img convert -O raw makes it raw, if it holds memory and not a disk"),
    (0, b"QED\0", "a QED disk image", ""),
    (0, b"KDMV", "a VMDK disk image", ""),
    (0, b"vhdxfile", "a VHDX disk image", ""),
    (0, b"conectix", "a VHD disk image", ""),
    (0, b"<<< ", "a VDI disk image", ""),
    (0, b"\x02\x21\x4c\x18", "compressed with lz4 -l, the form that Linux uses for its own image", "unpack it with unlz4"),
    (0, b"LZIP", "compressed with lzip", "unpack it with lzip -d"),
    (0, b"\x1f\x9d", "compressed with compress", "unpack it with uncompress"),
    (0, b"\x89LZO\0", "compressed with lzop", "unpack it with lzop -d"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"!<arch>\n", "an ar archive", ""),
    (0, b"\x89PNG\r\n", "a PNG picture", ""),
    (0, b"\xff\xd8\xff", "a JPEG picture", ""),
    (0, b"%PDF-", "a PDF document", ""),
    (0, b"SQLite format 3\0", "an SQLite database", ""),
    (0, b"MZ", "a program for Windows or EFI", ""),
    (0, b"hsqs", "a squashfs file system", ""),
    (0, b"XFSB", "an XFS file system", ""),
    (0, b"LUKS\xba\xbe", "an encrypted disk", ""),
    (4086, b"SWAPSPACE2", "a swap area", ""),
    (4086, b"S1SUSPEND", "a swap area with a hibernated machine, whose pages are packed in a form of its own", ""),
    (512, b"EFI PART", "a disk with a GPT partition table", ""),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system", ""),
)


def what_is(head: bytes) -> str | None:
    """What a file that begins like this is, and what to do about it; None if it may be memory."""
    for offset, magic, what, remedy in MAGIC:
        if head.startswith(magic, offset):
            return f"{what}: {remedy}" if remedy else what
    packing = packing_of(head)
    return f"packed with {packing.what}: unpack it" if packing else None


def what_is_named(path: str) -> str | None:
    """What a file of this name is, and what to do about it, if its bytes do not tell; None if it may be memory."""
    folder, name = os.path.split(path)
    if re.fullmatch(r"pages-[0-9]+\.img", name) and any(each.startswith("pagemap-") for each in os.listdir(folder or ".")):
        return "pages of CRIU without what says where they belong: name the folder that they are in"
    return None


def has_mark(head: bytes, mark: Mark) -> bool:
    return mark(head) if callable(mark) else head.startswith(mark[1], mark[0])


def packing_of(head: bytes) -> Packing | None:
    """How a file is packed that begins like this; None if it is not."""
    return next((packing for packing in PACKINGS if any(has_mark(head, mark) for mark in packing.marks)), None)


def reader_of(head: bytes) -> Reader | None:
    """Who reads a file that begins like this; None for a raw image, and for what is no memory."""
    return next((reader for reader in READERS if any(has_mark(head, mark) for mark in reader.marks)), None)
