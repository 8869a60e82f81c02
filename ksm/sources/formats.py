# SPDX-License-Identifier: GPL-2.0-only
"""What a file is, by its first bytes: who reads it; or that it is not memory, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ksm.sources.base import Source
    from ksm.sources.input import Input

HEAD = 4096  # bytes of a file that are looked at

# How a format is recognised: bytes at an offset, or a function of the first HEAD bytes
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
        from importlib import import_module

        module, _, function = self.opens.partition(":")
        source: Source = getattr(import_module(module), function)(input)
        return source


# The first one that fits reads the file. What none of them knows, and MAGIC does not either, is a raw image.
READERS: tuple[Reader, ...] = (
    Reader("an ELF core", ((0, b"\x7fELF"),), "ksm.sources.core:open_core"),
)  # fmt: skip

# (offset, bytes there, what it is, what to do)
MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"KDUMP   ", "a compressed crash dump", "make an ELF core of it with makedumpfile -E"),
    (0, b"DISKDUMP", "a compressed crash dump", "make an ELF core of it with makedumpfile -E"),
    (0, b"makedumpfile\0", "a crash dump in makedumpfile's flattened form", "put it together with makedumpfile -R"),
    (0, b"PAGEDUMP", "a crash dump of Windows", ""),
    (0, b"PAGEDU64", "a crash dump of Windows", ""),
    (0, b"EMiL", "a LiME dump", "dump with format=raw"),
    (0, b"QEVM", "a migration stream of QEMU", "dump the memory with pmemsave or dump-guest-memory"),
    (0, b"LibvirtQemudSave", "a saved guest of libvirt", "use virsh dump --memory-only"),
    (0, b"LibvirtQemudPart", "an unfinished saved guest of libvirt", "use virsh dump --memory-only"),
    (0, b"QFI\xfb", "a qcow2 disk image", "qemu-img convert -O raw makes it raw, if it holds memory and not a disk"),
    (0, b"QED\0", "a QED disk image", ""),
    (0, b"KDMV", "a VMDK disk image", ""),
    (0, b"vhdxfile", "a VHDX disk image", ""),
    (0, b"conectix", "a VHD disk image", ""),
    (0, b"<<< ", "a VDI disk image", ""),
    (0, b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (0, b"BZh", "compressed with bzip2", "unpack it with bunzip2"),
    (0, b"\xfd7zXZ\0", "compressed with xz", "unpack it with unxz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with unzstd"),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it with unlz4"),
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
    (512, b"EFI PART", "a disk with a GPT partition table", ""),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system", ""),
)


def what_is(head: bytes) -> str | None:
    """What a file that begins like this is, and what to do about it; None if it may be memory."""
    for offset, magic, what, remedy in MAGIC:
        if head.startswith(magic, offset):
            return f"{what}: {remedy}" if remedy else what
    return None


def has_mark(head: bytes, mark: Mark) -> bool:
    return mark(head) if callable(mark) else head.startswith(mark[1], mark[0])


def reader_of(head: bytes) -> Reader | None:
    """Who reads a file that begins like this; None for a raw image, and for what is no memory."""
    return next((reader for reader in READERS if any(has_mark(head, mark) for mark in reader.marks)), None)
