# SPDX-License-Identifier: GPL-2.0-only
"""Readers of formats, each as a function of bytes: whatever they are, a reader gives pages or an error of one line, soon and in little
memory."""

from __future__ import annotations

from collections.abc import Callable

from ksm.sources.base import Source, SourceError
from ksm.sources.dumps.libvirt import open_libvirt
from ksm.sources.dumps.lime import open_lime
from ksm.sources.dumps.qemu import open_qemu
from ksm.sources.dumps.windows import open_windows
from ksm.sources.input import Input
from ksm.sources.pieces import BUFFER, Run

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


def reader(opens: Callable[[Input], Source]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        try:
            read_all(opens(BytesInput(data)))
        except SourceError as error:
            assert "\n" not in str(error) and str(error).startswith("input: ")

    return run


READERS: dict[str, Callable[[bytes], None]] = {
    "qemu": reader(open_qemu),
    "libvirt": reader(open_libvirt),
    "lime": reader(open_lime),
    "windows": reader(open_windows),
}
