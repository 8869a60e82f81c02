# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: src/qemu/qemu_saveimage.h of libvirt.
"""`virsh save` and `virsh managedsave`: a header, the guest's XML, and QEMU's migration stream, which libvirt may have packed."""

from __future__ import annotations

import struct

from ksm.sources.base import Source, SourceError
from ksm.sources.dumps.common import damaged
from ksm.sources.dumps.qemu import open_qemu
from ksm.sources.formats import packing_of
from ksm.sources.input import CHUNK, Input

HEADER = "16s19I"  # magic, version, length of the XML and what belongs to it, was_running, format, and what is not looked at
MOST_XML = 64 << 20
MOST_ZEROS = 16 << 20
RAW, LZOP, SPARSE = 0, 4, 6
PACKED = {1: "gzip", 2: "bzip2", 3: "xz", LZOP: "lzop", 5: "zstd"}


class Rest(Input):
    """The rest of an input, as an input of its own, which takes it over."""

    def __init__(self, input: Input) -> None:
        super().__init__(input.name, holes=input.holes)
        self.input = input
        self._begin = input.position

    def _next(self, most: int) -> bytes:
        return self.input.some(most)

    def again(self) -> Input | None:
        input = self.input.again()
        if input is None:
            return None
        input.skip(self._begin)
        return Rest(input)

    def close(self) -> None:
        self.input.close()


def skip_zeros(input: Input) -> None:
    """Pass over zeros up to a stream that begins at a multiple of something: it may be written around the page cache."""
    for _ in range(MOST_ZEROS // CHUNK):
        data = input.some(CHUNK)
        if rest := data.lstrip(b"\0"):
            input.back(rest)
            return


def open_libvirt(input: Input) -> Source:
    """The source of a saved guest. It takes over the input, unless there is an error."""
    data = input.read(struct.calcsize("<" + HEADER))
    order = next((order for order in "<>" if struct.unpack(order + HEADER, data)[1] in (1, 2)), None)
    if order is None:
        raise SourceError(f"{input.name}: a saved guest of libvirt, of a version that is not read")
    _, _, length, _, form, *_ = struct.unpack(order + HEADER, data)
    if length > MOST_XML:
        raise damaged(input.name, f"a guest's XML of {length:,} bytes")
    input.skip(length)
    if form in (RAW, SPARSE):
        if form == SPARSE:
            skip_zeros(input)
        return open_qemu(input)
    if form not in PACKED:
        raise SourceError(f"{input.name}: a saved guest of libvirt, packed in a way that is not read")
    packing = packing_of(input.peek())
    if packing is None or packing.what != PACKED[form]:
        if form == LZOP:
            raise SourceError(f"{input.name}: a saved guest of libvirt, packed with lzop, which is not read: set save_image_format anew")
        raise damaged(input.name, f"no {PACKED[form]} data behind the header of libvirt")
    return open_qemu(packing.open(Rest(input)))
