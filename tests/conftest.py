# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own source, for tests that read or compile it.

None of it is in this repository. If Debian's package linux-source-6.12 is installed, a few files are unpacked into a temporary folder.
Otherwise tests that ask for them skip, or fail in CI.
"""

import fcntl
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
# Programs around the machine, which are the same on the versions of Python between the oldest and the newest
AROUND = ("cli", "draw", "estimate", "fingerprint", "fleet", "pictures", "record", "rows", "sources", "study")

TARBALL = Path("/usr/src/linux-source-6.12.tar.xz")
FILES = [
    "Makefile", "include/linux/hash.h", "include/linux/jhash.h", "include/linux/rbtree.h", "include/linux/rbtree_augmented.h",
    "include/linux/rbtree_types.h", "include/linux/xxhash.h", "include/trace/events/ksm.h", "lib/rbtree.c", "lib/xxhash.c", "mm/ksm.c",
    "mm/memory.c",
]  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if ROOT in item.path.parents and item.path.relative_to(ROOT).parts[0] in AROUND:
            item.add_marker(pytest.mark.ends)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder for all workers of this run, and a lock on it: with shared_folder() as folder: ..."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kernel-source"

    @contextmanager
    def locked():
        folder.mkdir(exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder

    return locked


@pytest.fixture(scope="session")
def kernel_source(shared_folder):
    """A folder with FILES, and nothing else of the kernel's; from $KSM_KERNEL_SOURCE, which .ci/run unpacks for all its environments."""
    unpacked = os.environ.get("KSM_KERNEL_SOURCE")
    if not unpacked and not TARBALL.exists():
        if os.environ.get("CI"):
            pytest.fail("CI needs the package linux-source-6.12")
        pytest.skip(f"{TARBALL} is not installed (package linux-source-6.12)")
    top = TARBALL.name.removesuffix(".tar.xz")
    # Unpacking takes ten seconds: the workers share what the first one has unpacked.
    with shared_folder() as folder:
        if not (folder / "unpacked").exists():
            if unpacked:
                subprocess.run(["tar", "-C", unpacked, "-cf", folder / "some.tar", *FILES], check=True)
                subprocess.run(["tar", "-C", folder, "-xf", folder / "some.tar"], check=True)
            else:
                names = [f"{top}/{name}" for name in FILES]
                subprocess.run(["tar", "-xJf", TARBALL, "-C", folder, "--strip-components=1", "--occurrence=1", *names], check=True)
            (folder / "unpacked").touch()
    return folder
