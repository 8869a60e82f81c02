# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of all dumps ask: the same counts as of a raw image of the same memory, and one line for what is damaged."""

import random
import time
from collections.abc import Iterable
from pathlib import Path

from dump_writers import PAGE, Memory, write_image
from fuzz.readers import read_all

from ksm.estimate.scan import Scan
from ksm.sources import Host, Source, SourceError, open_sources

COUNTERS = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages")


def scanned(*paths: Path, exact: bool = False, threads: int = 2, settings: Iterable[tuple[str, str]] = ()) -> tuple[object, ...]:
    """What a scan counts: pages, KSM's counters, the frames that would be free."""
    host = Host()
    sources, _ = open_sources([str(path) for path in paths], host, holes="absent")
    try:
        with Scan(sources, exact=exact, threads=threads, settings=dict(settings)) as scan:
            result = scan.run()
            if exact:  # the other machine has room for a TiB, which takes long to check
                assert scan.machine.check() == []
    finally:
        for source in sources:
            source.close()
        host.close()
    return result.pages, [result.ksm[name] for name in COUNTERS], result.savings


def same_as_image(path: Path, memory: Memory, *, exact: bool = True) -> None:
    """The dump counts as the memory does in a raw image: in a machine of fingerprints and in one of bytes."""
    image = write_image(path.with_name(path.name + ".raw"), memory)
    counts = scanned(image)
    assert counts[0] == len(memory)
    assert scanned(path) == counts
    assert scanned(path, threads=1, settings=[("use_zero_pages", "1")]) == scanned(image, settings=[("use_zero_pages", "1")])
    if exact:
        assert scanned(path, exact=True) == counts


def contents(source: Source) -> Memory:
    """The pages of a source, by number; the later one of two counts."""
    memory: Memory = {}
    buffer = memoryview(bytearray(256 << 10))

    def sink(runs: list[tuple[int, int]], view: memoryview) -> None:
        at = 0
        for start, end in runs:
            for address in range(start, end, PAGE):
                memory[address // PAGE] = bytes(view[at : at + PAGE])
                at += PAGE

    for piece in source.pieces():
        piece.read(buffer, sink)
    return memory


def outcome(path: Path) -> str:
    """The one line that says why a file is refused, without its name; "" if it is read."""
    host = Host()
    sources: list[Source] = []
    try:
        sources, _ = open_sources([str(path)], host)
        for source in sources:
            read_all(source)
    except SourceError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(str(path)), str(error)
        return str(error).removeprefix(str(path)).lstrip(":").lstrip()
    finally:
        for source in sources:
            source.close()
        host.close()
    return ""


def cut_off(path: Path, data: bytes, memory_ends: int) -> None:
    """The file is cut off at 50 places, and refused if that is before the end of its memory."""
    for place in range(50):
        length = 9 + (memory_ends - 9) * place // 50
        path.write_bytes(data[:length])
        assert "truncated" in outcome(path), length


def flipped(path: Path, data: bytes, seed: int, times: int = 150, *, within: int = 1 << 20) -> None:
    """Bytes are changed, most of them near the beginning. The file is refused in a line, or is read; it takes no longer than it did."""
    draw = random.Random(seed)
    start = time.process_time()
    for _ in range(times):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            where = draw.randrange(min(draw.choice((64, 512, within)), len(data)))
            changed[where] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        path.write_bytes(changed)
        outcome(path)
    assert time.process_time() - start < 30
