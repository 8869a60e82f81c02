# SPDX-License-Identifier: GPL-2.0-only
"""Memory that is read once, from front to back."""

import time

import pytest

import ksm
from ksm.sources.pieces import Loaded
from ksm.sources.stream import BASE, StreamSource

PAGE = 4096


class Slow(Loaded):
    """A piece that a thread takes long to read."""

    def read(self, buffer, sink):
        time.sleep(0.2)
        super().read(buffer, sink)


class Given(StreamSource):
    kind = "dump"

    def __init__(self, *pieces):
        super().__init__("given")
        self.given = pieces

    def pieces(self):
        yield from self.given


@pytest.mark.parametrize("kind", ["bytes", "fingerprints"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_page_that_comes_again_counts(kind, threads):
    """However long the one before takes."""
    source = Given(Slow(0, b"a" * 3 * PAGE), Loaded(8 * PAGE, b"b" * PAGE), Loaded(PAGE, b"c" * PAGE), Loaded(9 * PAGE, b"b" * PAGE))
    source.threads = threads
    with ksm.Machine("64M", pages=kind) as machine:
        source.attach(machine)
        if kind == "bytes":
            pages = [source.process.read(BASE + number * PAGE, PAGE)[:1] for number in (0, 1, 2, 8, 9)]
            assert pages == [b"a", b"c", b"a", b"b", b"b"]
        for _ in range(3):
            machine.ksm.scan(pages=100)
        assert (machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared) == (2, 2, 1)
        source.close()
