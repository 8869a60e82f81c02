# SPDX-License-Identifier: GPL-2.0-only
"""Linux in QEMU, emulated (TCG): a kernel, an initrd with busybox, and some files in memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import time
from pathlib import Path

from running import STARTED, Programs, at_rest

from ksm.oracle.kernels import Archive, is_static

MIB = 256  # of each guest
READY = b"GUEST-READY"
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /files
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t tmpfs none /files
for i in 1 2 3 4 5 6 7 8; do /bin/busybox cp /bin/busybox /files/$i; done
/bin/busybox dd if=/dev/urandom of=/files/own bs=1M count=8 2>/dev/null
/bin/busybox dd if=/dev/zero of=/files/zeros bs=1M count=24 2>/dev/null
/bin/busybox echo GUEST-READY
while true; do /bin/busybox sleep 100000; done
"""


def kernel() -> Path | None:
    """A kernel for guests: $KSM_GUEST_KERNEL, or this computer's."""
    if named := os.environ.get("KSM_GUEST_KERNEL"):
        return Path(named)
    return max(Path("/boot").glob("vmlinuz-*"), default=None)


def static(program: str) -> bool:
    """Whether it runs without libraries: Debian has a busybox of either kind."""
    return is_static(Path(program).read_bytes())


def initrd(busybox: str) -> bytes:
    """The first file system of a guest."""
    archive = Archive()
    archive.add("bin", 0o40755)
    archive.add("bin/busybox", 0o100755, Path(busybox).read_bytes())
    archive.add("init", 0o100755, INIT.encode())
    return gzip.compress(archive.end(), 1)


def two_guests(programs: Programs, path: str, busybox: str, image: Path, folder: Path, *, prctl: bool, advised: bool) -> list[int]:
    """Two guests from the same kernel, at rest. KSM may merge what their QEMU advises, all of QEMU's memory, or both."""
    (folder / "initrd").write_bytes(initrd(busybox))
    consoles = [folder / "console1", folder / "console2"]
    for console in consoles:
        programs.start(
            path, "-accel", "tcg", "-machine", f"pc,mem-merge={'on' if advised else 'off'}", "-m", MIB, "-nodefaults", "-display", "none",
            "-no-reboot", "-serial", f"file:{console}", "-qmp", f"unix:{console}.qmp,server=on,wait=off",
            "-kernel", image, "-initrd", folder / "initrd",
            "-append", "console=ttyS0 panic=-1 quiet", mergeable=prctl, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    deadline = time.monotonic() + STARTED
    while not all(console.exists() and READY in console.read_bytes() for console in consoles):
        assert time.monotonic() < deadline, f"the guests do not start: {consoles[0].read_bytes()[-500:]!r}"
        assert all(process.poll() is None for process in programs.started), "QEMU has ended"
        time.sleep(0.2)
    pids = programs.pids()
    at_rest(pids)
    return pids
