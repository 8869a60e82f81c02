# SPDX-License-Identifier: GPL-2.0-only
"""Compressed crash dumps that the tests write themselves, after the structures of makedumpfile's diskdump_mod.h."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

PAGE = 4096
FLAGS = {"none": 0, "zlib": 1, "lzo": 2, "snappy": 4, "zstd": 0x20}
INCOMPLETE = 8


def packer(how: str) -> Callable[[bytes], bytes]:
    """A function that packs a page; ImportError where the package is not there."""
    if how == "zlib":
        return lambda page: zlib.compress(page, 1)
    if how == "lzo":
        lzo = import_module("lzallright").LZOCompressor()
        return lambda page: bytes(lzo.compress(page))
    if how == "snappy":
        snappy = import_module("cramjam").snappy
        return lambda page: bytes(snappy.compress_raw(page))
    if how == "zstd":
        try:
            zstd = import_module("compression.zstd")
        except ImportError:
            zstd = import_module("backports.zstd")
        return lambda page: bytes(zstd.compress(page))
    return lambda page: page


def kdump(
    pages: Mapping[int, bytes],
    *,
    how: str = "zlib",
    there: Iterable[int] = (),
    order: str = "<",
    bits: int = 64,
    version: int = 6,
    page: int = PAGE,
    level: int = 1,
    split: int = 0,
    status: int = 0,
    most: int | None = None,
    missing: Iterable[int] = (),
    zeros_last: bool = False,
) -> bytes:
    """A dump of pages by number. `there`: pages of the machine that are not in the dump; `missing`: in it, but not written."""
    pack = packer(how)
    most = max(pages, default=0) + 1 if most is None else most
    blocks = -(-most // (8 * page))
    maps = [bytearray(blocks * page), bytearray(blocks * page)]
    for bitmap, numbers in zip(maps, ({*pages, *there}, pages), strict=True):
        for number in numbers:
            bitmap[number // 8] |= 1 << number % 8

    head = struct.pack(order + "8si390s", b"KDUMP   ", version, b"Linux".ljust(390, b"\0"))
    head += bytes(6 + 16) if bits == 64 else bytes(2 + 8)
    head += struct.pack(order + "iiiIIIIIii", FLAGS[how] | status, page, 1, 2 * blocks, min(most, 0xFFFFFFFF), 0, 0, 0, 0, 1)
    if bits == 64:
        second = struct.pack(order + "Qii11Q", 0, level, split, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, most)
    else:
        second = struct.pack(order + "Iii", 0, level, split)
    body = b"".join(part.ljust(page, b"\0") for part in (head, second)) + maps[0] + maps[1]

    data = bytearray()
    first = len(body) + 24 * len(pages)
    zeros = bytes(page)
    shared: tuple[int, int, int] | None = None

    def stored(content: bytes) -> tuple[int, int, int]:
        packed = pack(content)
        flags = FLAGS[how]
        if len(packed) >= page:
            packed, flags = content, 0
        place = first + len(data)
        data.extend(packed)
        return place, len(packed), flags

    if zeros in pages.values() and not zeros_last:
        shared = stored(zeros)
    table = bytearray()
    for number in sorted(pages):
        content = pages[number]
        if number in missing:
            row = (0, 0, 0)
        elif content == zeros:
            shared = row = shared or stored(zeros)
        else:
            row = stored(content)
        table += struct.pack(order + "QIIQ", *row, 0)
    return bytes(body + table + data)


def flattened(data: bytes, *, seed: int = 0, size: int = 5000, twice: bool = True) -> bytes:
    """The dump in the flattened form: blocks in any order, some overwritten later, zeros left out."""
    rng = random.Random(seed)
    blocks = []
    at = 0
    while at < len(data):
        length = rng.randrange(1, size)
        part = data[at : at + length]
        if part.strip(b"\0") or at + length >= len(data):
            blocks.append((at, part))
        at += length
    rng.shuffle(blocks)
    if twice and len(data) > 100:
        blocks[:0] = [(0, b"wrong" * 20), (len(data) - 50, b"wrong" * 10), (10, b"wrong")]
    result = struct.pack(">16s2q", b"makedumpfile", 1, 1).ljust(PAGE, b"\0")
    for place, part in blocks:
        result += struct.pack(">2q", place, len(part)) + part
    return result + struct.pack(">2q", -1, -1)
