# SPDX-License-Identifier: GPL-2.0-only
"""Every function of mm/ksm.c and lib/rbtree.c stands in the port, in the same order.

The kernel's text comes from Debian's package linux-source-6.12; where that is not installed the tests skip, but not in CI.
"""

import os
import re
import tarfile
from pathlib import Path

import pytest

import ksm
from ksm.study.functions import C_FUNCTION, CYTHON_FUNCTION
from ksm.study.notes import OMITTED as OMITTED_IN_KSM
from ksm.study.notes import OMITTED_IN_RBTREE

TARBALL = Path("/usr/src/linux-source-6.12.tar.xz")
PORT = Path(ksm.__file__).parent
FILES = {"mm/ksm.c": PORT / "mm/ksm.pyx", "lib/rbtree.c": PORT / "lib/rbtree.pyx"}

# What the port leaves out, and why.
OMITTED = {"mm/ksm.c": OMITTED_IN_KSM, "lib/rbtree.c": OMITTED_IN_RBTREE}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> dict[str, str]:
    """The kernel's files, without their comments."""
    if not TARBALL.exists():
        if os.environ.get("CI"):
            pytest.fail("CI needs the package linux-source-6.12")
        pytest.skip("needs Debian's linux-source-6.12")
    wanted = {f"linux-source-6.12/{name}": name for name in (*FILES, "include/trace/events/ksm.h")}
    text = {}
    with tarfile.open(TARBALL) as archive:
        for member in archive:
            if member.name in wanted:
                text[wanted[member.name]] = re.sub(r"/\*.*?\*/", "", archive.extractfile(member).read().decode(), flags=re.DOTALL)
                if len(text) == len(wanted):
                    break
    return text


@pytest.mark.parametrize("name", FILES)
def test_functions_and_their_order(kernel, name):
    theirs = list(dict.fromkeys(C_FUNCTION.findall(kernel[name])))
    ours = CYTHON_FUNCTION.findall(FILES[name].read_text())
    assert len(theirs) > 20
    assert [function for function in theirs if function not in ours and function not in OMITTED[name]] == []
    places = [ours.index(function) for function in theirs if function in ours]
    assert places == sorted(places)
    assert [function for function in OMITTED[name] if function not in theirs] == []


def test_sysfs_attributes_and_their_order(kernel):
    table = kernel["mm/ksm.c"].split("ksm_attrs[]")[1].split("};")[0]
    theirs = re.findall(r"&(\w+)_attr\.attr", table)
    read_only = set(re.findall(r"KSM_ATTR_RO\((\w+)\)", kernel["mm/ksm.c"]))
    with ksm.Machine(memory="1M", max_memory="1M") as machine:
        assert machine.ksm.names() == theirs
        assert len(theirs) == 24
        for name in theirs:
            if name in read_only:
                with pytest.raises(AttributeError):
                    setattr(machine.ksm, name, 0)
            else:
                machine.ksm.store(name, machine.ksm.show(name).partition("[")[2].partition("]")[0] or machine.ksm.show(name))


def test_tracepoints(kernel):
    theirs = re.findall(r"(?:TRACE_EVENT|DEFINE_EVENT)\((?:\w+,\s*)?(ksm_\w+)", kernel["include/trace/events/ksm.h"])
    header = (Path(ksm.get_include()) / "trace/events/ksm.pxd").read_text()
    theirs = [name for name in theirs if not name.endswith("_template")]
    assert len(theirs) == 9
    assert [name for name in theirs if f"void trace_{name}(" not in header] == []
