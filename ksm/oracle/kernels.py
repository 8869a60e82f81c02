# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: kernels that are to be booted.
"""Kernels of Debian: what is in their packages, and the first file system that they see.

A kernel is a folder into which a package linux-image-* was unpacked. It is named by such a folder, by the package's file, or by the
package's name, or the version in it: then apt downloads it. Nothing is installed, and nothing is kept.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ksm.oracle.packages import download, unpack
from ksm.oracle.workload import OracleError

UNPACKERS = {".xz": lzma.decompress, ".gz": gzip.decompress}

# What a guest needs, and not every kernel has built in: its root file system, and a device to swap to.
MODULES = ("virtio_pci", "virtiofs", "zram", "lzo-rle", "lzo")

INIT = """#!/bin/busybox sh
PATH=/bin
mount -t proc proc /proc
for module in /modules/*.ko; do insmod $module || echo "$module cannot be loaded"; done
mount -t virtiofs -o ro root /root || echo "no root"
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t devtmpfs devtmpfs /root/dev
mount -t tracefs tracefs /root/sys/kernel/tracing
mount -t tmpfs tmpfs /root/run
mkdir /root/run/tmp /root/run/exchange
mount -t virtiofs exchange /root/run/exchange
chroot /root /bin/sh /run/exchange/run > /root/run/exchange/log 2>&1
echo $? > /root/run/exchange/ended
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


class Kernel(NamedTuple):
    """A kernel to be booted: its image, the folder of its modules, and its release."""

    image: Path
    modules: Path
    release: str


def kernel_of(what: str, folder: Path) -> Kernel:
    """The kernel that is meant; what has to be unpacked or downloaded goes into the folder. OracleError."""
    path = Path(what)
    if what and path.is_dir():  # the path without a name is this folder
        return kernel_in(path)
    if not what or not path.exists():
        path = download(what, folder)
    if path.suffix != ".deb":
        raise OracleError(f"{what}: neither a package of a kernel nor a folder with one")
    unpacked = folder / "unpacked"
    unpacked.mkdir(parents=True, exist_ok=True)
    unpack(path, unpacked, folder)
    return kernel_in(unpacked)


def kernel_in(folder: Path) -> Kernel:
    """The kernel in a folder: in its boot, or, as Debian has it since 6.19, with its modules. OracleError."""
    images = sorted([*folder.glob("boot/vmlinuz-*"), *folder.glob("usr/lib/modules/*/vmlinuz")])
    if len(images) != 1:
        raise OracleError(f"{folder}: {len(images)} kernels in it, and not one")
    if images[0].name == "vmlinuz":
        return Kernel(images[0], images[0].parent, images[0].parent.name)
    release = images[0].name.removeprefix("vmlinuz-")
    return Kernel(images[0], folder / "lib" / "modules" / release, release)


def modules_of(kernel: Kernel) -> Iterator[tuple[str, bytes]]:
    """The modules that a guest needs, each after those that it depends on: (name, contents)."""
    files = {path.name.partition(".ko")[0].replace("-", "_"): path for path in kernel.modules.glob("kernel/**/*.ko*")}
    done: set[str] = set()

    def needed(name: str) -> Iterator[tuple[str, bytes]]:
        name = name.replace("-", "_")
        if name in done or name not in files:  # what is not there is built in, or the workloads that need it say so
            return
        done.add(name)
        data = files[name].read_bytes()
        if files[name].suffix in UNPACKERS:
            data = UNPACKERS[files[name].suffix](data)
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends[1].decode().split(",") if depends else ():
            yield from needed(other)
        yield name, data

    for name in MODULES:
        yield from needed(name)


def initramfs(kernel: Kernel) -> bytes:
    """The first file system of a guest: busybox, modules, and a script that goes on in this machine's root. OracleError."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise OracleError("busybox is missing (apt-get install busybox-static)")
    program = Path(busybox).read_bytes()
    if not is_static(program):
        raise OracleError("busybox has to be a static one (apt-get install busybox-static)")
    archive = Archive()
    for name in ("bin", "proc", "root", "modules", "dev"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, program)
    for name in ("sh", "mount", "insmod", "mkdir", "chroot", "sync", "sleep", "echo"):
        archive.add(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox")
    for number, (name, data) in enumerate(modules_of(kernel)):
        archive.add(f"modules/{number:02}-{name}.ko", stat.S_IFREG | 0o644, data)
    archive.add("init", stat.S_IFREG | 0o755, INIT.encode())
    return archive.end()


def is_static(program: bytes) -> bool:
    """Whether a program runs without libraries: it names no loader."""
    return b"ld-linux" not in program[:4096]


class Archive:
    """A cpio archive in the "newc" format, as the kernel unpacks it."""

    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.count = 0

    def add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self.count += 1
        encoded = os.fsencode(name) + b"\0"
        fields = (self.count, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        self.out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        self.pad()
        self.out.write(data)
        self.pad()

    def pad(self) -> None:
        self.out.write(bytes(-self.out.tell() % 4))

    def end(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return self.out.getvalue()
