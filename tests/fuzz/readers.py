# SPDX-License-Identifier: GPL-2.0-only
"""Readers of formats, each as a function of bytes: whatever they are, a reader gives pages or an error of one line, soon and in little
memory."""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ksm.machine import Machine
from ksm.sources import open_input
from ksm.sources.base import Source, SourceError
from ksm.sources.dumps.criu import open_criu
from ksm.sources.dumps.libvirt import open_libvirt
from ksm.sources.dumps.lime import open_lime
from ksm.sources.dumps.qemu import open_qemu
from ksm.sources.dumps.windows import open_windows
from ksm.sources.dumps.xen import open_xen
from ksm.sources.input import FileInput, Input
from ksm.sources.pieces import BUFFER, Run
from ksm.sources.unpack import first_module

MOST = 1 << 28  # bytes of pages that are read


class BytesInput(Input):
    """Bytes as an input, `at_once` of them at most in one step."""

    def __init__(self, data: bytes, at_once: int = 1 << 20, *, known: bool = False) -> None:
        super().__init__("input", len(data) if known else None)
        self.data, self.at_once = data, at_once

    def _next(self, most: int) -> bytes:
        at = self.position + len(self._head)
        return self.data[at : at + min(most, self.at_once)]

    def again(self) -> Input:
        return BytesInput(self.data, self.at_once, known=self.size is not None)


def read_all(source: Source) -> int:
    """Read the pieces of a source: how many bytes of pages they had."""
    total = 0
    buffer = memoryview(bytearray(BUFFER))

    def sink(runs: list[Run], view: memoryview) -> None:
        assert all(start < end and not start % 4096 and not end % 4096 for start, end in runs)
        assert sum(end - start for start, end in runs) == len(view)

    for piece in source.pieces():
        assert piece.length > 0
        piece.read(buffer, sink)
        total += piece.length
        if total > MOST:
            break
    return total


def one_line(run: Callable[[], object]) -> None:
    """Run, and let no exception pass but an error of one line."""
    try:
        run()
    except SourceError as error:
        assert "\n" not in str(error) and str(error).startswith("input")


def reader(opens: Callable[[Input], Source], *, files_only: bool = False) -> Callable[[bytes], None]:
    """A reader of an Input: the bytes come through a pipe, and lie in a file."""

    def run(data: bytes) -> None:
        if not files_only:
            one_line(lambda: read_all(opens(BytesInput(data))))
        fd = os.memfd_create("input")
        try:
            os.write(fd, data)
            one_line(lambda: read_all(opens(FileInput("input", fd, len(data)))))
        finally:
            os.close(fd)

    return run


def criu(data: bytes) -> None:
    """A folder of CRIU: two bytes say how long pagemap-1.img is, the rest is mm-1.img. There are 64 KiB of pages."""
    length = int.from_bytes(data[:2], "little")
    with tempfile.TemporaryDirectory() as folder:
        files = {"pagemap-1.img": data[2 : 2 + length], "mm-1.img": data[2 + length :], "pages-1.img": bytes(1 << 16)}
        for name, part in files.items():
            Path(folder, name).write_bytes(part)
        Path(folder, "parent").symlink_to(".")
        try:
            for source in open_criu(folder):
                read_all(source)
        except SourceError as error:
            assert "\n" not in str(error) and str(error).startswith(folder)


def opened(data: bytes) -> None:
    """All that opens a file: what it is, how it is packed, and its reader; through a pipe, and in a file."""
    one_line(lambda: read_and_close(open_input(BytesInput(data))))
    fd = os.memfd_create("input")
    os.write(fd, data)
    one_line(lambda: read_and_close(open_input(FileInput("input", fd, len(data)))))


def read_and_close(source: Source) -> None:
    try:
        read_all(source)
    finally:
        source.close()


def begins_with(magic: bytes) -> Callable[[bytes], None]:
    """opened(), of files of one format: else most changes to a file make a raw image of it."""
    return lambda data: opened(magic + data[len(magic) :])


def packings() -> dict[str, bytes]:
    """A small image in every form in which files are packed, as far as packages are there."""
    import bz2
    import lzma

    image = bytes(4096) + b"a" * 4096 + bytes(range(256)) * 16
    packed = {"gzip": gzip.compress(image), "bzip2": bz2.compress(image), "xz": lzma.compress(image)}
    packed["lzma"] = lzma.compress(image, lzma.FORMAT_ALONE)
    if zstd := first_module("compression.zstd", "backports.zstd"):
        packed["zstd"] = zstd.compress(image)
    if lz4 := first_module("lz4.frame"):
        packed["lz4"] = lz4.compress(image)
    if cramjam := first_module("cramjam"):
        packed["snappy"] = bytes(cramjam.snappy.compress(image))
    return packed


def fingerprints(data: bytes) -> None:
    """A fingerprint file, read into a machine."""
    fd = os.memfd_create("input")
    os.write(fd, b"PAR1" + data[4:])

    def run() -> None:
        sources = open_input(FileInput("input", fd, len(data))).parts()
        with Machine("16M", max_memory="1G", pages="fingerprints") as machine:
            try:
                for source in sources:
                    source.attach(machine)
            finally:
                for source in sources:
                    source.close()

    one_line(run)


def fingerprint_files() -> list[bytes]:
    """Small ones, if pyarrow is there."""
    if not first_module("pyarrow.parquet"):
        return []
    from given import write_rows

    several = {"a": {0: 0, 4096: 5, 1 << 40: 7}, "b": {}, "c": {4096 * place: place % 9 for place in range(600)}}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, str(place)) for place in range(3)]
        write_rows(files[0], several)
        write_rows(files[1], {"a": {0: 1}})
        write_rows(files[2], several, key=bytes(32))
        return [file.read_bytes() for file in files] + [unpacked(file) for file in files]


def unpacked(path: Path) -> bytes:
    """A fingerprint file without compression and checksums, so that what is changed comes as far as it can."""
    from pyarrow import BufferOutputStream, parquet

    file, output = parquet.ParquetFile(path), BufferOutputStream()
    encodings = {"address": "DELTA_BINARY_PACKED", "fingerprint": "PLAIN", "checksum": "PLAIN"}
    with parquet.ParquetWriter(
        output, file.schema_arrow, compression="none", use_dictionary=["source", "class"], column_encoding=encodings
    ) as writer:
        for group in range(file.num_row_groups):
            writer.write_table(file.read_row_group(group))
        writer.add_key_value_metadata({"ksm": file.metadata.metadata[b"ksm"]})
    return bytes(output.getvalue())


READERS: dict[str, Callable[[bytes], None]] = {
    "qemu": reader(open_qemu),
    "libvirt": reader(open_libvirt),
    "lime": reader(open_lime),
    "windows": reader(open_windows),
    "xen": reader(open_xen, files_only=True),
    "criu": criu,
    "packed": opened,
    **{name: begins_with(data[:4]) for name, data in packings().items()},
    "core": begins_with(b"\x7fELF"),
    "kdump": begins_with(b"KDUMP   "),
    "flattened": begins_with(b"makedumpfile\0"),
    "fingerprints": fingerprints,
}


def corpus(name: str) -> list[bytes]:
    """Where the fuzzing of a reader begins: whole files of a few pages."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "sources"))
    import crash_dumps
    import dump_writers as write
    from cores import auxv_note, core_bytes, files_note, note

    memory = {1: bytes(4096), 2: b"a" * 4096, 5: bytes(range(256)) * 16, 6: b"a" * 4096}
    place = [(0x10000, 2, bytes(2 * 4096)), (0x20000, 1, None)]
    pagemap, mappings = write.criu_images(1, place, [(0x10000, 0x12000, write.ANON), (0x20000, 0x30000, write.FILE)])
    files: dict[str, Callable[[], list[bytes]]] = {
        "qemu": lambda: [write.qemu(memory), write.qemu(memory, compress=True), write.mapped_ram([("a", 8 * 4096, memory)])],
        "libvirt": lambda: [write.libvirt(write.qemu(memory)), write.libvirt(gzip.compress(write.qemu(memory)), 1)],
        "lime": lambda: [write.lime(memory), *([write.avml(memory)] if "snappy" in packings() else [])],
        "windows": lambda: [write.windows_complete(memory), write.windows_complete(memory, 32), write.windows_bitmap(memory),
                            write.windows_table(memory), write.windows_table(memory, 8)],
        "xen": lambda: [write.xen(memory), write.xen(memory, words=2, gone=1)],
        "core": lambda: [core_bytes([(0x10000, memory[2] * 3, 6), (0x20000, memory[5], 4)], notes, odd=odd) for odd in (0, 8)
                         for notes in (b"", note("QEMU", 0, b"abcd"), files_note((0x20000, 0x21000, "/a")) + auxv_note(0))],
        "kdump": lambda: [crash_dumps.kdump(memory, how=how) for how in ("none", "zlib", *(["zstd"] if "zstd" in packings() else []))],
        "flattened": lambda: [crash_dumps.flattened(crash_dumps.kdump(memory), twice=twice) for twice in (False, True)],
        "fingerprints": fingerprint_files,
        "packed": lambda: [*packings().values(), *(gzip.compress(data) for data in packings().values())],
        **{form: partial(list, [data, data + data]) for form, data in packings().items()},
        "criu": lambda: [len(pagemap).to_bytes(2, "little") + pagemap + mappings],
    }  # fmt: skip
    return files[name]()
