# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: src/qemu/qemu_saveimage.h of libvirt.
"""`virsh save` and `virsh managedsave`: a header, the guest's XML, and QEMU's migration stream, which libvirt may have packed."""

from __future__ import annotations

import struct

from ksm.sources.base import Source, SourceError
from ksm.sources.dumps.common import damaged
from ksm.sources.dumps.qemu import open_qemu
from ksm.sources.input import Input

HEADER = "16s19I"  # magic, version, length of the XML and what belongs to it, was_running, format, and what is not looked at
MOST_XML = 64 << 20
RAW, GZIP, BZIP2, XZ, LZOP, ZSTD, SPARSE = range(7)


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
        return open_qemu(input)
    raise SourceError(f"{input.name}: a saved guest of libvirt, packed in a way that is not read")
