# SPDX-License-Identifier: GPL-2.0-only
"""A swap area for the kernel's side: a zram device of our own. It writes and reads at once, so that reclaim is the same each time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import time
from pathlib import Path

from ksm.oracle.ptrace import libc
from ksm.oracle.workload import PAGE, OracleError

CONTROL = Path("/sys/class/zram-control")
PAGE_CLUSTER = Path("/proc/sys/vm/page-cluster")
PREFERRED = 0x8000 | 0x7FFF  # used before all other areas


class Swap:
    def __init__(self, pages: int) -> None:
        if not CONTROL.exists():
            raise OracleError("the workload swaps, and this kernel has no zram")
        with contextlib.ExitStack() as stack:
            number = int((CONTROL / "hot_add").read_text())
            stack.callback((CONTROL / "hot_remove").write_text, str(number))
            (Path(f"/sys/block/zram{number}") / "disksize").write_text(str((pages + 1) * PAGE))
            self.path = f"/dev/zram{number}"
            header = bytes(1024) + struct.pack("<III", 1, pages, 0)
            self.node(header.ljust(PAGE - 10, b"\0") + b"SWAPSPACE2")
            self.call("swapon", self.path.encode(), ctypes.c_int(PREFERRED))
            stack.callback(self.call, "swapoff", self.path.encode())
            stack.callback(PAGE_CLUSTER.write_text, PAGE_CLUSTER.read_text())
            PAGE_CLUSTER.write_text("0")  # no read-ahead: a page comes back only when it is asked for
            self.stack = stack.pop_all()

    def node(self, header: bytes) -> None:
        deadline = time.monotonic() + 5
        while not os.path.exists(self.path):  # devtmpfs makes it
            if time.monotonic() > deadline:
                raise OracleError(f"{self.path} does not come up")
        with open(self.path, "r+b") as file:
            file.write(header)

    def call(self, name: str, *args: object) -> None:
        if getattr(libc, name)(*args) < 0:
            raise OracleError(f"{name}({self.path}) failed: {os.strerror(ctypes.get_errno())}")

    def close(self) -> None:
        self.stack.close()
