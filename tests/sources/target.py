# SPDX-License-Identifier: GPL-2.0-only
"""A process to be looked at: it runs every line that it reads, and answers. `area(n)` is new private memory of n pages."""

import ctypes
import mmap
import os
import sys
import time

PAGE = 4096


def area(pages: int, flags: int = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) -> mmap.mmap:
    return mmap.mmap(-1, pages * PAGE, flags=flags)


def address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def huge_area(blocks: int) -> mmap.mmap:
    """Private memory with as many huge pages of zeros as this computer gives; first_huge() is the number of their first page."""
    memory = area((blocks + 1) * 512)
    memory.madvise(14)  # MADV_HUGEPAGE
    first = first_huge(memory)
    for block in range(blocks):
        memory[(first + block * 512) * PAGE] = 0
    return memory


def first_huge(memory: mmap.mmap) -> int:
    return -address(memory) // PAGE % 512


def fill(memory: mmap.mmap, first: int, contents: list[int]) -> None:
    """Pages from `first` on, each with a number of its own, or zeros. In pieces: elsewhere in this process there is no such page."""
    for place, number in enumerate(contents, first):
        piece = number.to_bytes(8, "little") * 64
        for at in range(place * PAGE, (place + 1) * PAGE, len(piece)):
            memory[at : at + len(piece)] = piece


children: dict[int, tuple[int, int]] = {}
answer = 0


def child() -> int:
    """Fork. The child runs the lines that tell() sends it, and ends when nobody can send it any more."""
    down, up = os.pipe(), os.pipe()
    pid = os.fork()
    if pid:
        os.close(down[0])
        os.close(up[1])
        children[pid] = (up[0], down[1])
        return pid
    os.close(down[1])
    os.close(up[0])
    for line in os.fdopen(down[0]):
        exec(line, globals())
        os.write(up[1], b"%d" % answer)
    os._exit(0)


def sleeper() -> int:
    """Fork. The child sleeps, also when its parent has ended."""
    pid = os.fork()
    if not pid:
        time.sleep(3600)
    return pid


def tell(pid: int, line: str) -> int:
    """Have a child run a line: what `answer` is in it afterwards."""
    os.write(children[pid][1], line.encode() + b"\n")
    return int(os.read(children[pid][0], 100))


print(os.getpid(), flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
