# SPDX-License-Identifier: GPL-2.0-only
"""Runs the command `ksm` again and again, each time in a fork of its own, and says what each run took.

A program: a line of JSON on standard input is {"arguments": [...], "stdin": path, "seconds": limit}, the answer is a line with "code",
"out", "err", "seconds" of processor time and "peak", the bytes of memory that it had more than it began with.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any, NoReturn

import ksm.cli.advise
import ksm.cli.bench
import ksm.cli.doctor
import ksm.cli.fingerprint
import ksm.cli.scan
import ksm.cli.study
import ksm.cli.sweep
import ksm.cli.watch
import ksm.cli.why
import ksm.cli.workloads
import ksm.estimate.eras
import ksm.oracle.__main__
import ksm.study.lessons
import ksm.study.page
import ksm.study.terminal
from ksm.cli.group import main

ksm.estimate.eras.running_release = lambda: "6.12"  # the default of --era is the same on every computer
PROGRAMS = {"ksm": main, "python -m ksm.oracle": ksm.oracle.__main__.main}
SHOWN = 1 << 16


def child(program: str, arguments: list[str], files: Sequence[IO[bytes]]) -> NoReturn:
    """Run the command in this process, write the answer, and exit."""
    code = 70
    try:
        for number, file in enumerate(files):
            os.dup2(file.fileno(), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        PROGRAMS[program](arguments, prog_name=program)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            code = 1
        os._exit(code)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def run(order: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(order.get("stdin") or os.devnull, "rb") as stdin:
        before = resident()
        pid = os.fork()
        if not pid:
            child(order.get("program", "ksm"), order["arguments"], (stdin, out, err))
        deadline = time.monotonic() + order["seconds"]
        killed = False
        while True:
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                killed, deadline = True, float("inf")
            time.sleep(0.002)
        texts = [os.pread(file.fileno(), SHOWN, 0).decode(errors="replace") for file in (out, err)]
    return {"code": "hangs" if killed else os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1],
            "seconds": usage.ru_utime + usage.ru_stime, "peak": max(0, usage.ru_maxrss * 1024 - before)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
