# SPDX-License-Identifier: GPL-2.0-only
"""Trees to read mm/ksm.c from: the reader's 6.12, and a small one in our own words."""

import pytest

from ksm.study.kernel import read_kernel
from ksm.study.page import render

# Functions with three names that every mm/ksm.c has, in our own words.
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


@pytest.fixture(scope="session")
def linux(kernel_source):
    """The folder of a tree of 6.12 with mm/ksm.c and its Makefile."""
    return kernel_source


@pytest.fixture(scope="session")
def whole(linux):
    """The page of ksm study with all files of 6.12, and without recordings. Making it takes seconds."""
    return render(read_kernel(str(linux)), [])


@pytest.fixture
def tiny(tmp_path):
    """A tree that passes for a kernel's, of version 6.99.3-rc1."""
    tree = tmp_path / "tiny"
    (tree / "mm").mkdir(parents=True)
    (tree / "mm/ksm.c").write_text(TINY)
    (tree / "Makefile").write_text(MAKEFILE)
    return tree
