# SPDX-License-Identifier: GPL-2.0-only
"""A process to be looked at: it runs every line that it reads, and answers. `area(n)` is new private memory of n pages."""

import ctypes
import mmap
import os
import sys
import time  # noqa: F401 (the lines use it)

PAGE = 4096


def area(pages: int, flags: int = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) -> mmap.mmap:
    return mmap.mmap(-1, pages * PAGE, flags=flags)


def address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def fill(memory: mmap.mmap, first: int, contents: list[int]) -> None:
    """Pages from `first` on, each with a number of its own, or zeros. In pieces: elsewhere in this process there is no such page."""
    for place, number in enumerate(contents, first):
        piece = number.to_bytes(8, "little") * 64
        for at in range(place * PAGE, (place + 1) * PAGE, len(piece)):
            memory[at : at + len(piece)] = piece


print(os.getpid(), flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
