# SPDX-License-Identifier: GPL-2.0-only
"""Every function of mm/ksm.c and lib/rbtree.c stands in the port, in the same order.

The kernel's text comes from Debian's package linux-source-6.12: see tests/conftest.py.
"""

import re
from pathlib import Path

import pytest

import ksm
from ksm.study.functions import CYTHON_FUNCTION, c_source
from ksm.study.notes import OMITTED as OMITTED_IN_KSM
from ksm.study.notes import OMITTED_IN_RBTREE

PORT = Path(ksm.__file__).parent
FILES = {"mm/ksm.c": PORT / "mm/ksm.pyx", "lib/rbtree.c": PORT / "lib/rbtree.pyx"}

# The functions that the port leaves out, and why.
OMITTED = {"mm/ksm.c": OMITTED_IN_KSM, "lib/rbtree.c": OMITTED_IN_RBTREE}


@pytest.fixture(scope="module")
def kernel(kernel_source) -> dict[str, str]:
    """The kernel's files, without their comments."""
    names = (*FILES, "include/trace/events/ksm.h")
    return {name: re.sub(r"/\*.*?\*/", "", (kernel_source / name).read_text(), flags=re.DOTALL) for name in names}


@pytest.mark.parametrize("name", FILES)
def test_functions_and_their_order(kernel, name):
    theirs = list(c_source(kernel[name]).functions)
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
