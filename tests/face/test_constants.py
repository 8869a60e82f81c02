# SPDX-License-Identifier: GPL-2.0-only
"""ksm.constants are the numbers of include/linux/mman.pxd, which the substrate uses, and of the system's own headers."""

import mmap
import re
from pathlib import Path

import ksm
from ksm import constants

HEADER = Path(ksm.get_include()) / "linux" / "mman.pxd"
OURS = {name: value for name, value in vars(constants).items() if name.isupper() and name != "PAGE_SIZE"}


def test_the_headers_numbers():
    header = {name: int(value, 0) for name, value in re.findall(r"^    ([A-Z_]+) = (\w+)$", HEADER.read_text(), re.MULTILINE)}
    assert len(OURS) > 20
    assert {name: header.get(name) for name in OURS} == OURS


def test_the_systems_numbers():
    theirs = {name: getattr(mmap, name) for name in OURS if hasattr(mmap, name)}
    assert {"MADV_MERGEABLE", "MADV_DONTFORK", "PROT_READ", "MAP_PRIVATE"} <= set(theirs)
    assert theirs == {name: OURS[name] for name in theirs}
