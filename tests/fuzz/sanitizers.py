# SPDX-License-Identifier: GPL-2.0-only
"""The environment of a build with sanitizers, and what their reports say.

AddressSanitizer and UndefinedBehaviorSanitizer end a life at their first report. Leaks are looked for while the life still runs, after its
machine is gone. Only leaks of this package's modules count: the interpreter has some of its own, above all after a fork.
"""

from __future__ import annotations

import ctypes
import glob
import os
import re
import subprocess
import sys
from pathlib import Path

EXIT = 77
OPTIONS = {
    # A huge allocation fails, as it would on a computer with little memory; an abort is reported with its stack.
    "ASAN_OPTIONS": f"detect_leaks=1:leak_check_at_exit=0:exitcode={EXIT}:handle_abort=1:allocator_may_return_null=1:"
                    "max_allocation_size_mb=2048:quarantine_size_mb=64:malloc_context_size=12",
    "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={EXIT}",
}  # fmt: skip


def sanitized() -> bool:
    """Whether the package on the path is a build with sanitizers. Such a build cannot be imported before their runtime is loaded."""
    for folder in sys.path:
        for module in glob.glob(os.path.join(glob.escape(folder or "."), "ksm", "machine.*.so")):
            return b"__asan_init" in Path(module).read_bytes()
    return False


def environment() -> dict[str, str]:
    # The library of C++, too: without it, an exception that pyarrow throws and catches is a report.
    runtimes = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    return {"LD_PRELOAD": ":".join(runtimes), "PYTHONMALLOC": "malloc", **OPTIONS}


def look_for_leaks() -> bool:
    """Whether there are leaks, the interpreter's among them. The report goes to stderr."""
    check = getattr(ctypes.CDLL(None), "__lsan_do_recoverable_leak_check", None)
    return bool(check is not None and check())


def leaks(report: str) -> list[str]:
    """The leaks of this package in a report, each in one line."""
    found = []
    for block in re.split(r"\n(?=(?:Direct|Indirect) leak of )", report)[1:]:
        frames = re.findall(r"#\d+ \S+ in (\S+) .*", block.split("\n\n")[0])
        ours = re.findall(r"#\d+ \S+ in (__pyx\S+|ksm\S+)", block.split("\n\n")[0])
        if ours and block.startswith("Direct"):
            found.append(f"{block.splitlines()[0]} {' < '.join(name_of(frame) for frame in frames[:4])}")
    return found


def name_of(function: str) -> str:
    """The name that a function has in the source."""
    return re.sub(r"^__pyx_\w*?_3ksm_", "", function)


def crash(report: str) -> str | None:
    """The first line of a sanitizer's report, or of another end, with the functions of this package that it names."""
    match = re.search(
        r"^.*(?:ERROR: AddressSanitizer.*|runtime error: .*|ksm: BUG at .*|Fatal Python error.*|CHECK failed.*)$", report, re.MULTILINE
    )
    if match is None:
        return None
    frames = re.findall(r"#\d+ \S+ in (__pyx_\S+)", report[match.start() :].split("\n\n")[0])
    line = re.sub(r"==\d+==|0x[0-9a-f]+|\(pid \d+\)", "", match[0]).strip()
    return f"{line} {' < '.join(name_of(frame) for frame in frames[:3])}".strip()
