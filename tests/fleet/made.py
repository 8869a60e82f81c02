# SPDX-License-Identifier: GPL-2.0-only
"""A made fleet: machines of twelve images on forty hosts, as rows of fingerprint files and not as bytes, of which all is known."""

from __future__ import annotations

import hashlib
import os
import random
from functools import cache
from pathlib import Path
from typing import NamedTuple

import ksm
from ksm.fingerprint.classes import CLASSES
from ksm.rows import KEYED_HASH, PLAIN_HASH
from ksm.rows.format import Head
from ksm.rows.write import Writer

PAGE = ksm.PAGE_SIZE
SIZES = [8, 8, 16, 16, 32, 32, 48, 48, 64, 64]  # MiB of the machines of each host
HOMES = [4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3]  # hosts that the machines of each image fill
HOSTS = sum(HOMES)
WHOLE = 256  # pages for a MiB; fewer make the same fleet smaller


class Machine(NamedTuple):
    """A machine. `contents` has a number for each page, 0 for zeros: equal numbers are equal pages. On their `home`, the machines of an
    image live with none of another one.
    """

    name: str
    host: str
    home: str
    image: int
    contents: list[int]


def made(scale: int = WHOLE, *, seed: int = 1) -> list[Machine]:
    """The fleet, with `scale` pages for each MiB: 400 machines. Each host has the same sizes, and machines of several images.

    Of a machine's pages, a tenth are zeros; four tenths come from the front of its image's contents, a tenth from the front of those that
    all images have, a tenth from the front of those that two neighbouring images have. A tenth are copies of pages of its own, and the
    others are its own, each once.
    """
    chance = random.Random(seed)
    images = [image for image, homes in enumerate(HOMES) for _ in range(homes)]
    hosts = [chance.sample(range(HOSTS), HOSTS) for _ in SIZES]
    result: list[Machine] = []
    for home, image in enumerate(images):
        for slot, size in enumerate(SIZES):
            number = len(result)
            pages = size * scale
            tenth = pages // 10
            base = 1 << 40 | number << 20
            private = pages - 8 * tenth
            contents = [0] * tenth
            contents += [1 << 38 | image << 20 | place for place in range(4 * tenth)]
            contents += [1 << 39 | place for place in range(tenth)]
            contents += [1 << 39 | (1 + image // 2) << 20 | place for place in range(tenth)]
            contents += [base | place for place in range(private)]
            contents += [base | chance.randrange(private) for _ in range(tenth)]
            chance.shuffle(contents)
            result.append(Machine(f"vm{number:03}.img", f"host{hosts[slot][home]:02}", f"host{home:02}", image, contents))
    return result


def class_of(content: int) -> int:
    """The place in CLASSES of a contents' class."""
    return 1 + content % (len(CLASSES) - 1) if content else CLASSES.index("zero")


@cache
def frame_of(content: int, key: str) -> bytes:
    """The frame of a contents, 32 bytes."""
    if not content:
        return bytes(32)
    return hashlib.blake2b(content.to_bytes(8, "little"), digest_size=20, key=key.encode()).digest() + bytes(12)


def write_file(path: Path, host: str, machines: list[Machine], *, key: str = "", time: str = "2026-01-01T00:00:00+00:00") -> None:
    """A fingerprint file of these machines."""
    head = Head(host, time, KEYED_HASH if key else PLAIN_HASH, key, ksm.__version__, [])
    with open(path, "wb") as file:
        writer = Writer(file, head)
        for machine in machines:
            writer.begin(machine.name, "image")
            pages = len(machine.contents)
            if pages:
                frames = b"".join(frame_of(content, key) for content in machine.contents)
                writer.add([(0, pages * PAGE)], frames, bytes(map(class_of, machine.contents)))
            writer.end([])
        writer.finish()


def write_fleet(folder: Path, machines: list[Machine], *, key: str = "") -> list[str]:
    """A fingerprint file for each host: their paths."""
    by_host: dict[str, list[Machine]] = {}
    for machine in machines:
        by_host.setdefault(machine.host, []).append(machine)
    paths = []
    for host, some in sorted(by_host.items()):
        path = folder / f"{host}.parquet"
        write_file(path, host, some, key=key)
        paths.append(os.fspath(path))
    return paths
