# SPDX-License-Identifier: GPL-2.0-only
"""The rules of ksm/gate.pyx, as far as the source shows them."""

import re
from pathlib import Path

import pytest

import ksm

PACKAGE = Path(ksm.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.pyx") if "testing" not in path.parts)  # TEST SUPPORT looks at machines that rest
ENTERS = re.compile(r"\.(enter|get_mm)\(\)")
LEAVES = re.compile(r"\.(leave|put_mm)\(")
LOCKS = re.compile(r"\b(mutex_lock|mmap_read_lock|mmap_write_lock|spin_lock)\(")


def indent(line):
    return len(line) - len(line.lstrip())


def has_the_gil(lines, number):
    """Whether the line stands neither in `with nogil` nor in a nogil function. Looks at the enclosing lines from the inside out."""
    level = indent(lines[number])
    for line in reversed(lines[:number]):
        if line.strip() and indent(line) < level:
            level = indent(line)
            text = line.strip()
            if text == "with nogil:":
                return False
            if text == "with gil:":
                return True
            if text.startswith(("cdef ", "def ")):
                return not re.search(r"\bnogil:$", text)
    return True


def statements(path):
    """The lines of a file without docstrings and comments. A signature of several lines becomes one line."""
    text = re.sub(r'"""(.|\n)*?"""', '""', path.read_text())
    text = re.sub(r"(?m)\s+#.*$", "", text)
    before = None
    while text != before:
        before, text = text, re.sub(r"(?m)^(\s*(?:cdef|def) [^\n:]*,)\n\s+", r"\1 ", text)
    return text.split("\n")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_has_the_gil_inside_a_machine(path):
    lines = statements(path)
    found = [line.strip() for number, line in enumerate(lines) if ENTERS.search(line) or LEAVES.search(line) if has_the_gil(lines, number)]
    assert found == []


# These locks are held for a few instructions only, so a thread may wait for them with the GIL.
BRIEF = {"gate.pyx": ["spin_lock(&gate.lock)"] * 3}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_waits_for_a_lock_with_the_gil(path):
    lines = statements(path)
    found = [line.strip() for number, line in enumerate(lines) if LOCKS.search(line) if has_the_gil(lines, number)]
    assert found == BRIEF.get(path.name, [])


def test_the_search_finds_something():
    lines = ["def f(self):", "    self.enter()", "    with nogil:", "        self.enter()", "        if x:", "            self.leave()",
             "        with gil:", "            self.leave()", "cdef int g(self) except -1 nogil:", "    self.enter()",
             "cdef int h(self) except -1:", "    self.enter()"]
    assert [number for number in range(len(lines)) if has_the_gil(lines, number) and "self." in lines[number]] == [1, 7, 11]
    entered = {path.name for path in SOURCES if ENTERS.search(path.read_text())}
    assert {"machine.pyx", "process.pyx", "sysfs.pyx", "trace.pyx", "recorder.pyx", "savings.pyx"} <= entered
