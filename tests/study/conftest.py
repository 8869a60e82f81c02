# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's text, from Debian's packages linux-source-*; never from here."""

import os
from pathlib import Path

import pytest

from ksm.study.kernel import read_kernel

# Three functions of the names that every mm/ksm.c has, in words of ours.
TINY = """
static void stable_tree_search(void)
{
	return;
}

static void unstable_tree_search_insert(void)
{
	stable_tree_search();
}

/* The whole of it. */
static void cmp_and_merge_page(void)
{
	stable_tree_search();
	unstable_tree_search_insert();
}
"""
MAKEFILE = "VERSION = 6\nPATCHLEVEL = 99\nSUBLEVEL = 3\nEXTRAVERSION = -rc1\n"


def tarball(version):
    return next((path for path in Path("/usr/src").glob(f"linux-source-{version}.tar.*") if path.is_file()), None)


def tree_of(version, tmp_path_factory):
    """The two files that are read of a tarball, unpacked once for all workers: unpacking takes seconds."""
    base = tmp_path_factory.getbasetemp()
    tree = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"linux-{version}"
    if not (tree / "Makefile").exists():
        path = tarball(version)
        if path is None:
            return None
        kernel = read_kernel(str(path))
        numbers = dict(zip(("VERSION", "PATCHLEVEL", "SUBLEVEL"), kernel.version.split("."), strict=False))
        (tree / "mm").mkdir(parents=True, exist_ok=True)
        files = {"mm/ksm.c": "\n".join(kernel.source.lines), "Makefile": "".join(f"{key} = {number}\n" for key, number in numbers.items())}
        for name, text in files.items():
            part = tree / f"{name}.{os.getpid()}"
            part.write_text(text)
            part.replace(tree / name)
    return tree


@pytest.fixture(scope="session")
def linux_of(tmp_path_factory):
    """The tree of a version, by its number; None where Debian's package of it is not installed."""
    return lambda version: tree_of(version, tmp_path_factory)


@pytest.fixture(scope="session")
def linux(tmp_path_factory):
    """The folder of a tree of 6.12 with mm/ksm.c."""
    tree = tree_of("6.12", tmp_path_factory)
    if tree is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs the package linux-source-6.12")
        pytest.skip("needs Debian's linux-source-6.12")
    return tree


@pytest.fixture
def tiny(tmp_path):
    """A tree that passes for a kernel's, of version 6.99.3-rc1."""
    tree = tmp_path / "tiny"
    (tree / "mm").mkdir(parents=True)
    (tree / "mm/ksm.c").write_text(TINY)
    (tree / "Makefile").write_text(MAKEFILE)
    return tree
