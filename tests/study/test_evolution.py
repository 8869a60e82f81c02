# SPDX-License-Identifier: GPL-2.0-only
"""What has changed between two versions: names, places, behaviour, and what that means for a page. Small texts are in our own words."""

import html
import re
import time
from pathlib import Path

import pytest

from ksm.study import evolution, told
from ksm.study.base import base_hashes, base_version
from ksm.study.evolution import KINDS, changes
from ksm.study.functions import c_source
from ksm.study.kernel import Kernel, read_kernel
from ksm.study.told import BEHAVIOUR, FACTS, Fact, with_one_name

pytestmark = pytest.mark.once

LONG = "\tfirst(one, two);\n\tif (second(one))\n\t\tthird(two, one);\n\tfourth(one);\n\tfifth(two);\n\tsixth(one, two);\n"


def function(name, body, head="static void"):
    return f"{head} {name}(int one, int two)\n{{\n{body}}}\n"


def version(*functions):
    text = "\n".join(functions)
    return Kernel("a tree", "", c_source(text), {"mm/ksm.c": text})


def found(new, old):
    return {change.name: change for change in changes(new, old)}


def test_a_function_with_another_name():
    change = found(version(function("now", LONG)), version(function("before", LONG)))
    assert list(change) == ["now"] and change["now"].was == "before" and change["now"].what == "renamed"
    assert change["now"].kinds == ["rename"] and change["now"].texts == ["Only names differ: before → now."]


def test_other_names_in_a_function():
    old = LONG + "\tlast = one;\n\tlast |= two;\n"
    change = found(version(function("same", old.replace("last", "value"))), version(function("same", old)))["same"]
    assert change.kinds == ["rename"] and change.texts == ["Only names differ: last → value."]
    # Another function may do other things, and so may another flag
    change = found(version(function("same", LONG.replace("fifth", "another"))), version(function("same", LONG)))["same"]
    assert change.kinds == ["untold"] and change.texts == ["Only names differ: fifth → another."]
    # One name for two is no other name
    change = found(version(function("same", LONG.replace("fifth", "fourth"))), version(function("same", LONG)))["same"]
    assert change.kinds == ["untold"] and change.texts == []


def test_two_functions_that_look_alike_are_no_renamed_one():
    change = found(version(function("now", LONG)), version(function("before", LONG), function("other", LONG)))
    assert {name: each.what for name, each in change.items()} == {"now": "new", "before": "gone", "other": "gone"}


def test_names_that_mean_the_same():
    old = "".join(("\tstruct page *page = get_ksm_page(one);\n\tlock_page(page);\n\tif (PageKsm(page))\n\t\tput_page(page);\n",
                   "\tdown_read(&mm->mmap_sem);\n"))
    new = "".join(("\tstruct folio *folio = ksm_get_folio(one);\n\tfolio_lock(folio);\n\tif (folio_test_ksm(folio))\n",
                   "\t\tfolio_put(folio);\n\tmmap_read_lock(mm);\n"))
    assert with_one_name(old) == with_one_name(new)
    assert found(version(function("same", new)), version(function("same", old)))["same"].kinds == ["rename"]
    assert found(version(function("same", new)), version(function("same", old)))["same"].texts == ["Other names for the same steps."]


def test_lines_that_have_moved():
    short = "\tpart(one, two);\n"
    change = found(version(function("whole", short), function("part", LONG)), version(function("whole", LONG + "\tlast(two);\n")))
    assert change["part"].kinds == ["move"] and change["part"].texts == ["Most of its lines were in whole() before."]
    back = found(version(function("whole", LONG + "\tlast(two);\n")), version(function("whole", short), function("part", LONG)))
    assert back["part"].what == "gone" and back["part"].texts == ["Most of its lines are in whole() now."]


def test_statements_in_another_order():
    lines = LONG.splitlines(keepends=True)
    change = found(version(function("same", "".join([lines[-1], *lines[:-1]]))), version(function("same", LONG)))["same"]
    assert change.kinds == ["move"] and change.texts == ["The same statements in another order."]


def test_trace_events():
    change = found(version(function("same", LONG + "\ttrace_ksm_enter(one);\n")), version(function("same", LONG)))["same"]
    assert change.kinds == ["trace"]


def test_what_came_and_what_went(monkeypatch):
    """A function that a newer version lacks is not told by what it brought when it came."""
    monkeypatch.setattr(evolution, "FACTS", (Fact(("some",), "6.10", BEHAVIOUR, "", "It came."),
                                             Fact(("some",), "6.20", BEHAVIOUR, "", "It went.", old=True)))
    without, has = version(function("first", LONG)), version(function("first", LONG), function("some", "\tother(one);\n"))
    for new, old, versions, text in (
            (has, without, ("6.12", "6.1"), "Since 6.10: It came."), (without, has, ("6.1", "6.12"), "Since 6.10: It came."),
            (without, has, ("7.3", "6.12"), "Since 6.20: It went."), (has, without, ("6.12", "7.3"), "Since 6.20: It went.")):
        new.version, old.version = versions
        assert found(new, old)["some"].texts == [text]


@pytest.mark.parametrize(("version", "other", "newer"), [
    ("6.12.117", "6.1.192", True), ("6.1", "6.12", False), ("7.3-rc1", "6.12.117", True), ("2.6.38", "3.0", False), ("", "6.12", None),
    ("6.12", "6.12", None)])
def test_which_version_is_newer(version, other, newer):
    assert evolution.is_newer(version, other) is newer


def test_thousands_of_functions():
    """Each with another name and other lines: what is compared with what does not grow with the square of their number."""
    def body(name, n):
        return f"\tcall_{n % 7}(one, {n});\n\tmore_{name}(two, {n});\n" * (2 if name == "new" else 1)

    new, old = (version(*(function(f"{name}_{n}", body(name, n)) for n in range(1200))) for name in ("new", "old"))
    began = time.process_time()
    assert len(found(new, old)) == 2400
    assert len(found(new, None)) == 1200 + len(base_hashes())
    assert time.process_time() - began < 10


def test_a_comment_is_no_change():
    assert found(version(function("same", f"\t/* a comment */\n{LONG}")), version(function("same", LONG))) == {}


def test_what_it_means_is_said_whichever_version_is_the_first(monkeypatch):
    fact = Fact(("same",), "6.99", BEHAVIOUR, r"fifth\(two\)", "Two things happen.", base=False)
    monkeypatch.setattr(evolution, "FACTS", (fact,))
    versions = [version(function("same", LONG)), version(function("same", LONG.replace("\tfifth(two);\n", "")))]
    for new, old in (versions, versions[::-1]):
        change = found(new, old)["same"]
        assert change.kinds == [BEHAVIOUR] and change.texts == ["Since 6.99: Two things happen."]
    both = [version(function("same", LONG)), version(function("same", LONG + "\tlast(two);\n"))]
    assert found(*both)["same"].kinds == ["untold"]


def test_a_new_file_of_sysfs():
    change = found(version(function("any_show", LONG), function("first", LONG)), version(function("first", LONG)))["any_show"]
    assert change.kinds == ["read"] and change.texts == ["The file /sys/kernel/mm/ksm/any."]


def test_words_that_differ_are_marked():
    new, old = (version(function("same", LONG.replace("third(two, one)", call))) for call in ("third(two, <three>)", "third(two, one)"))
    diff = [str(line) for kind, line in found(new, old)["same"].diff if kind in ("add", "del")]
    assert diff == ["-                third(two, <mark>one</mark>);", "+                third(two, <mark>&lt;three&gt;</mark>);"]
    assert found(new, old)["same"].lines == {5}


# Against 6.12

def test_every_fact_is_of_6_12_or_not_as_it_says(linux):
    kernel = read_kernel(str(linux))
    if kernel.version != base_version():
        pytest.skip("a later 6.12 than that of the hashes")
    for fact in FACTS:
        codes = [evolution._code(kernel.source.functions[name]) for name in fact.functions if name in kernel.source.functions]
        assert {fact.found(code) for code in codes} <= {fact.base} and (codes or not fact.base), (fact.functions, fact.sign)
        assert not re.search(r"[<>&]|\.\.", fact.text) and fact.text.endswith("."), fact.text
    assert {kind for kind in (fact.kind for fact in FACTS)} <= set(KINDS)


def test_by_hashes_alone(linux, tmp_path):
    text = (linux / "mm/ksm.c").read_text()
    for old, new in (("ksm_get_folio(", "get_ksm_page("), ("FAULT_FLAG_UNSHARE |", "FAULT_FLAG_WRITE |"),
                     ("smart_scan_show", "clever_scan_show")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "ksm.c").write_text(text)
    change = found(read_kernel(str(tmp_path / "ksm.c")), None)
    assert change["get_ksm_page"].what == "renamed" and change["get_ksm_page"].was == "ksm_get_folio"
    assert change["get_ksm_page"].kinds == ["rename"]
    assert change["break_ksm"].kinds == [BEHAVIOUR] and "unshare fault" in change["break_ksm"].texts[1]
    assert "ksm_get_folio" not in change and not any(each.diff for each in change.values())
    assert "read" in change["clever_scan_show"].kinds
    assert set(change) <= {*base_hashes(), "get_ksm_page", "clever_scan_show"}


@pytest.mark.slow
def test_nothing_is_untold_between_6_1_and_6_12(linux):
    path = next(Path("/usr/src").glob("linux-source-6.1.tar.*"), None)
    if path is None:
        pytest.skip("needs Debian's linux-source-6.1")
    new, old = read_kernel(str(linux)), read_kernel(str(path))
    for one, other in ((new, old), (old, new)):
        change = found(one, other)
        assert [name for name, each in change.items() if "untold" in each.kinds] == []
        assert "first visit" in html.unescape(" ".join(change["cmp_and_merge_page"].texts)) or "at the first" in " ".join(
            change["cmp_and_merge_page"].texts)
    assert found(new, old)["try_to_merge_with_zero_page"].kinds[0] == "move"
    assert found(new, old)["ksm_get_folio"].kinds == ["rename"]


def test_synonyms_do_not_undo_each_other():
    for _, name in told.SYNONYMS:
        if isinstance(name, str) and "\\" not in name:
            assert with_one_name(with_one_name(name)) == with_one_name(name)
