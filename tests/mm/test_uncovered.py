# SPDX-License-Identifier: GPL-2.0-only
"""The table of lines that no test runs: its lines are in ksm.pyx."""

import importlib.util
from collections import Counter
from pathlib import Path

import ksm

SPEC = importlib.util.spec_from_file_location("uncovered", Path(__file__).with_name("uncovered.py"))
uncovered = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(uncovered)
SOURCE = (Path(ksm.__file__).parent / "mm" / "ksm.pyx").read_text()


def test_each_line_of_the_table_is_there():
    there = Counter(uncovered.functions(SOURCE))
    named = Counter((name, line) for name, lines, _ in uncovered.UNCOVERED for line in lines or ())
    assert {place: count for place, count in named.items() if there[place] < count} == {}
    assert {name for name, *_ in uncovered.UNCOVERED} <= {name for name, _ in there}


def test_what_the_table_does_not_name_is_found():
    source = "cdef int f(int x) noexcept nogil:\n    return 1    # why\n    return 1\n    return 2\ncdef void g():\n    pass\n"
    table = [("f", ["return 1"], "a reason"), ("g", None, "a reason")]
    assert uncovered.unexplained(source, {2, 6}, table) == []
    assert uncovered.unexplained(source, {2, 3, 4, 6}, table) == [3, 4]
