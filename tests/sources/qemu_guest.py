# SPDX-License-Identifier: GPL-2.0-only
"""A small guest of QEMU, which is stopped from its start on, and does as its monitor is told."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PAGE = 4096
QEMU = "qemu-system-x86_64"
MIB = 32  # of the guest's memory
AT = 2 << 20  # where in it the contents begin


def there() -> bool:
    return shutil.which(QEMU) is not None


def contents(pages: int = 2000) -> bytes:
    """Pages of zeros, pages that are there many times, and pages that are there once."""
    rng = random.Random(3)
    kinds = [lambda: bytes([rng.randrange(1, 6)]) * PAGE, lambda: bytes(PAGE), lambda: rng.randbytes(PAGE), lambda: b"ab" * (PAGE // 2)]
    return b"".join(rng.choice(kinds)() for _ in range(pages))


class Guest:
    """QEMU with a guest of MIB, whose memory has contents() at AT. Files that it writes lie in the folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        fill = folder / "contents"
        fill.write_bytes(contents())
        path = folder / "qmp"
        self.process = subprocess.Popen(
            [QEMU, "-accel", "tcg", "-m", str(MIB), "-nodefaults", "-display", "none", "-S", "-qmp", f"unix:{path},server=on,wait=off",
             "-device", f"loader,file={fill},addr={AT:#x},force-raw=on", *options]
        )  # fmt: skip
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            for _ in range(200):
                try:
                    self.socket.connect(str(path))
                    break
                except OSError:
                    time.sleep(0.05)
            self.lines = self.socket.makefile("rw")
            self.lines.readline()
            self.do("qmp_capabilities")
        except BaseException:
            self.process.kill()
            raise

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.do("quit")
        except (OSError, ValueError):
            self.process.kill()
        self.process.wait()
        self.lines.close()
        self.socket.close()

    def do(self, command: str, **arguments: Any) -> Any:
        """What the monitor answers; RuntimeError if that is an error."""
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def formats(self) -> list[str]:
        """The forms that its dump-guest-memory knows; the kdump ones of a new QEMU also without being flattened, as kdump-raw-*."""
        formats: list[str] = self.do("query-dump-guest-memory-capability")["formats"]
        return [form for form in formats if form != "win-dmp"]

    def dump(self, form: str) -> Path:
        path = self.folder / form
        self.do("dump-guest-memory", paging=False, protocol=f"file:{path}", format=form)
        return path
