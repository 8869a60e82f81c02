# SPDX-License-Identifier: GPL-2.0-only
"""README.md shows what really happens."""

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """The names that the README's Python has defined at its end; and its output, `printed`, and its comments on that, `promised`."""
    found, output = {}, io.StringIO()
    [code] = blocks("python")
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), found)
    found["printed"] = output.getvalue().splitlines()
    found["promised"] = re.findall(r"^print\(.*\) +# (.*)$", code, re.MULTILINE)
    yield found
    found["machine"].close()


def test_the_example_prints_what_its_comments_say(names):
    assert names["printed"] == names["promised"] != []


def test_errors_look_as_shown(names):
    [session] = blocks("pycon")
    test = doctest.DocTestParser().get_doctest(session, names, "README.md", "README.md", 0)
    output = io.StringIO()
    result = doctest.DocTestRunner(verbose=False).run(test, out=output.write, clear_globs=False)
    assert result.attempted == 3
    assert result.failed == 0, output.getvalue()


def test_files_that_are_named_exist():
    named = set(re.findall(r"`?((?:ksm|tests|benchmarks|include)/[\w/]+\.(?:py|pyx|pxd))\b", README.read_text()))
    assert {"ksm/mm/ksm.pyx", "include/linux/rbtree.pxd"} <= named
    assert [name for name in sorted(named) if not (README.parent / name).exists()] == []


def test_picture_of_a_scan():
    """The picture is there, and has the rows that a report has."""
    picture = README.read_text().partition("<!-- ksm scan: begin -->")[2].partition("<!-- ksm scan: end -->")[0]
    for row in ("KSM would free", "zero pages", "duplicates within one source", "duplicates across sources", "unshared", "volatile",
                "Metadata", "general_profit", "vm1.img", "overstates"):  # fmt: skip
        assert row in picture
