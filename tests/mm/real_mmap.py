# SPDX-License-Identifier: GPL-2.0-only
"""A process that makes the system calls of test_mmap.py for real. It reads a list of calls as a line of JSON, and writes a line of results.

With an argument the process first becomes this user, and has no privileges.
"""

import ctypes
import json
import os
import sys
from typing import Any

PAGE = 4096
FAILED = 2**64 - 1

libc = ctypes.CDLL(None, use_errno=True)
ulong, int_ = ctypes.c_ulong, ctypes.c_int
for name, arguments in (("mmap", (ulong, ulong, int_, int_, int_, ctypes.c_long)), ("munmap", (ulong, ulong)),
                        ("mprotect", (ulong, ulong, int_)), ("mremap", (ulong, ulong, ulong, int_, ulong)),
                        ("madvise", (ulong, ulong, int_))):
    function = getattr(libc, name)
    function.argtypes, function.restype = arguments, ulong


def call(name: str, *arguments: int) -> int:
    """0 or the errno."""
    if name == "mmap":
        arguments += (-1, 0)
    ctypes.set_errno(0)
    result = getattr(libc, name)(*arguments)
    return ctypes.get_errno() if result in (FAILED, 2**32 - 1) else 0


def maps(start: int, end: int) -> list[tuple[int, int, int, bool]]:
    found = []
    with open("/proc/self/maps") as lines:
        for line in lines:
            limits, flags = line.split()[:2]
            low, high = (int(limit, 16) for limit in limits.split("-"))
            if low < end and high > start:
                prot = sum(bit for bit, letter in ((1, "r"), (2, "w"), (4, "x")) if letter in flags)
                found.append((low, high, prot, flags[3] == "s"))
    return found


def run(start: int, end: int, calls: list[list[Any]]) -> tuple[list[Any], list[str]]:
    results: list[Any] = []
    for name, *arguments in calls:
        if name == "write":
            addr, byte = arguments
            ctypes.memset(addr, byte, 1)
            results.append(0)
        elif name == "read":
            results.append(ctypes.string_at(arguments[0], 1)[0])
        else:
            results.append(call(name, *arguments))
        results.append(maps(start, end))
    contents = []
    for low, high, prot, shared in maps(start, end):
        if prot and not shared:         # a shared mapping may be longer than its object
            contents.append(ctypes.string_at(low, high - low)[::PAGE].hex())
    libc.munmap(start, end - start)
    return results, contents


def main() -> None:
    if sys.argv[1:]:
        os.setuid(int(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
