# SPDX-License-Identifier: GPL-2.0-only
"""The files side by side: helpers beside the lines that they stand for, what only the port has, mm/memory.c and lib/rbtree.c, twins."""

import re
import tarfile
from pathlib import Path

import pytest

from ksm.study import kernel as kernel_module
from ksm.study import rows
from ksm.study.align import aligned, code_lines, with_twins
from ksm.study.base import base_version
from ksm.study.functions import c_source, cython_source
from ksm.study.kernel import LONGEST_FUNCTION, StudyError, read_kernel
from ksm.study.marks import helpers_of, not_the_kernels
from ksm.study.page import render
from ksm.study.pairing import BESIDE, FAULT, KSM, TREES, read_port, study
from ksm.study.same import compared

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[2] / "docs/same.md"


@pytest.fixture(scope="module")
def subject(linux):
    return study(read_kernel(str(linux)))


def beside(subject, name):
    """The rows of a function as text: (line of the kernel, line of the port), each without the spaces around it."""
    return [(subject.theirs.lines[a - 1].strip() if a else "", subject.port.lines[b - 1].strip() if b else "")
            for a, b in subject.pair(name).rows]


# Helpers

def test_each_helper_stands_in_the_function_that_it_is_a_part_of(subject):
    helpers = helpers_of(subject.port)
    assert {"stable_tree_search", "write_protect_page", "replace_page"} <= set(helpers)
    for host, names in helpers.items():
        pair = subject.pair(host)
        assert {part.name for part in pair.parts} == set(names)
        lines = [line for _, line in pair.rows if line]
        for part in pair.parts:
            at = lines.index(part.first)
            assert lines[at:at + part.last - part.first + 1] == list(range(part.first, part.last + 1)), part.name
            assert subject.pair(part.name) is pair


def test_a_helpers_lines_are_beside_those_that_they_stand_for(subject):
    search = beside(subject, "stable_tree_search")
    label = {theirs: own for theirs, own in search if theirs in ("out:", "replace:", "chain_append:")}
    assert 'stable_tree_search(): "replace"' in label["replace:"] and '"chain_append"' in label["chain_append:"]
    assert ("stable_node_dup->head = &migrate_nodes;", "stable_node_dup.head = &g.migrate_nodes") in search
    assert ("stable_node_chain_add_dup(page_node, stable_node);", "stable_node_chain_add_dup(g, page_node, stable_node)") in search
    protect = [theirs for theirs, own in beside(subject, "write_protect_page") if own]
    assert protect.index("entry = pte_mkclean(entry);") < protect.index("out_unlock:")
    names = [part.label for part in subject.pair("stable_tree_search").parts]
    assert names == ["out", "replace", "chain_append"]


def test_most_lines_have_their_twin_on_their_row(subject, linux):
    found = subject.twins()
    assert sum(twins for _, twins in found.values()) > 0.85 * sum(lines for lines, _ in found.values())
    for name in ("stable_tree_search", "replace_page", "ksm_get_folio", "cmp_and_merge_page", "scan_get_next_rmap_item"):
        lines, twins = found[name]
        assert twins > 0.85 * lines, name
    if read_kernel(str(linux)).version == base_version():
        page = PAGE.read_text(encoding="utf-8")
        assert page == rows.written(page, subject.kernel), "python -m ksm.study.share TREE docs/same.md writes it anew"


def test_a_twin_is_counted_once_for_each_line_of_its_statement():
    theirs = c_source("int name(int one,\n\tint two)\n{\n\t/* a comment */\n\tcall(one,\n\t  two);\n\tmore(one);\n}\n")
    own = cython_source("cdef int name(int one, int two):\n    call(one, two)\n    other(three)\n")
    function = theirs.functions["name"]
    assert code_lines(theirs, function) == {1: 1, 2: 1, 5: 5, 6: 5, 7: 7}
    found = aligned(theirs, range(1, 9), own, range(1, 4))
    assert found.twins == {(1, 1), (5, 2)}
    assert with_twins(theirs, function, found.twins) == (5, 4)


def test_what_the_comparison_has_found_the_same_is_beside_each_other(subject):
    rows_of = {pair.kernel.name: pair for pair in subject.pairs if pair.kernel}
    table = compared(KSM.name, subject.kernel.texts[KSM.name])
    # A statement may be there twice on one side. Most of those that are there once are on one row.
    once = beside_each_other = 0
    for row in table.rows:
        pairs = [(a, b) for a, b in row.lines if [x for x, _ in row.lines].count(a) == [y for _, y in row.lines].count(b) == 1]
        once += len(pairs)
        beside_each_other += len(set(pairs) & set(rows_of[row.name].rows))
    assert beside_each_other > 0.98 * once > 900


def test_another_name_does_not_part_twins(subject, linux, tmp_path):
    """A version that calls things otherwise has the same lines beside the port's."""
    text = (linux / "mm/ksm.c").read_text()
    for now, old in (("ksm_get_folio", "get_ksm_page"), ("KSM_GET_FOLIO_", "GET_KSM_PAGE_"), ("folio_trylock(", "trylock_page("),
                     ("folio_try_get(", "get_page_unless_zero("), ("folio_test_swapcache(", "PageSwapCache("), ("folio_put(", "put_page(")):
        assert now in text
        text = text.replace(now, old)
    (tmp_path / "ksm.c").write_text(text)
    found = study(read_kernel(str(tmp_path / "ksm.c")))
    for name in ("ksm_get_folio", "remove_rmap_item_from_tree", "stable_tree_search"):
        assert len(found.pair(name).twins) >= len(subject.pair(name).twins) - 1, name
    assert found.pair("ksm_get_folio").renamed == "get_ksm_page"


# What only the port has

def test_what_is_not_the_kernels(subject):
    hooks = {number: subject.port.lines[number - 1].strip() for number in subject.hooks}
    ours = {number for pair in subject.pairs if pair.reason == "OURS" for number in range(pair.port.first, pair.port.last + 1)}
    steps = {number for number, line in enumerate(subject.port.lines, 1) if line.strip().startswith("ksm_step(")} - ours
    assert len(steps) > 25 and steps <= set(hooks)
    assert any("# OURS" in line for line in hooks.values()) and "else:" in hooks.values()
    twins = {line for pair in subject.pairs for _, line in pair.twins}
    assert not twins & set(hooks)
    same = {b for row in compared(KSM.name, subject.kernel.texts[KSM.name]).rows for _, b in row.lines}
    assert not same & set(hooks)


def test_a_statement_that_stands_for_one_of_the_kernels_is_no_hook():
    text = "\n".join((
        "cdef int f(int a):", "    ksm_step(a)", "    # OURS: it comes first", "    b = g(a)", "    h(a)        # OURS: wait_on_bit()",
        "    if a:       # OURS: for a test", "        c = 1", "    i(a)", "",
        "    WRITE_ONCE_int(a, 1)      # OURS: it is read elsewhere",
        "    # Not here: copy: it cannot fail", "    j(a)        # OURS: a copy",
        "    if b:", "        k(a)", "    else:", "        ksm_step(b)"))
    assert not_the_kernels(cython_source(text)) == {2, 3, 4, 6, 7, 15, 16}


# The other two files

def test_the_way_of_a_write_fault(linux):
    subject = study(read_kernel(str(linux)), FAULT)
    names = {pair.name: pair for pair in subject.pairs}
    assert {"do_wp_page", "wp_page_copy", "handle_pte_fault", "wp_can_reuse_anon_folio"} <= {
        name for name, pair in names.items() if pair.kernel and pair.port}
    pair = names["__handle_mm_fault"]       # the port has one function for both
    assert pair.port.name == "handle_mm_fault" and names["handle_mm_fault"].port is None
    assert all(pair.kernel and (pair.port or pair.reason) for pair in subject.pairs)
    assert ("count_vm_event(COW_KSM);", "count_vm_event(vma.vm_mm.machine, COW_KSM)") in beside(subject, "do_wp_page")
    hooks = {subject.port.lines[number - 1].strip().partition("(")[0] for number in subject.hooks}
    assert "ksm_step" in hooks


def test_the_trees(linux):
    subject = study(read_kernel(str(linux)), TREES)
    assert subject.paired >= 20
    assert [pair.name for pair in subject.pairs if pair.kernel and not pair.port] == ["rb_replace_node_rcu"]
    found = subject.twins()
    assert sum(twins for _, twins in found.values()) > 0.95 * sum(lines for lines, _ in found.values())


def test_a_lone_file_says_that_it_needs_the_tree(tiny, whole):
    (tiny / "lib").mkdir()
    (tiny / "lib/rbtree.c").write_text("int f(void)\n{\n" + "\tg();\n" * (LONGEST_FUNCTION + 1) + "}\n")
    page = render(read_kernel(str(tiny)), [])
    assert "Linux 6.99.3-rc1 has no mm/memory.c beside mm/ksm.c." in page
    assert "lib/rbtree.c is left out: f() has more than 1,000 lines." in page
    assert 'id="pm' in page and 'id="pr' in page and 'id="km' not in page
    assert 'id="km' in whole and 'id="kr' in whole and "beside mm/ksm.c." not in whole


def test_a_tarball_is_read_once(linux, tmp_path, monkeypatch):
    archive = tmp_path / "linux.tar"
    with tarfile.open(archive, "w") as file:
        for name in ("Makefile", "lib/rbtree.c", "mm/ksm.c", "mm/memory.c"):
            file.add(linux / name, f"linux-6.12/{name}")
    opened = []
    real = kernel_module.files_in
    monkeypatch.setattr(kernel_module, "files_in", lambda *arguments: opened.append(1) or real(*arguments))
    kernel = read_kernel(str(archive))
    assert all(study(kernel, file).theirs for file in (KSM, *BESIDE)) and opened == [1]


@pytest.mark.parametrize("text", ["int f(void)\n{\n" + "\tg();\n" * (LONGEST_FUNCTION + 1) + "}\n", "x" * 5000 + "\n"])
def test_a_file_beside_it_that_is_no_source_is_left_out(tiny, text):
    (tiny / "mm/memory.c").write_text(text)
    kernel = read_kernel(str(tiny))
    assert "mm/memory.c" not in kernel.texts and kernel.refused["mm/memory.c"]
    assert study(kernel, FAULT).theirs is None


def test_other_files_without_the_functions_that_are_shown(tiny):
    (tiny / "mm/memory.c").write_text("static int other(void)\n{\n\treturn 0;\n}\n")
    assert study(read_kernel(str(tiny)), FAULT).theirs is None


# The page

def test_the_page_does_not_begin_with_includes(whole):
    for page in (whole, render(None, [])):
        opening = page.index('<details class="opening">')
        end = page.index("</details>", opening)
        assert page.index("SPDX-License-Identifier", page.index('<main id="code"')) in range(opening, end)
        assert not re.search(r"#include|cimport", re.sub("<[^>]*>", "", page[end:page.index("<h2>", end)]))
        assert re.search(r"<summary>Licence and includes: \d+ lines</summary>", page)


def test_headings_say_how_much_is_the_same(subject, whole):
    table = compared(KSM.name, subject.kernel.texts[KSM.name])
    for row in table.rows:
        if row.name in ("cmp_and_merge_page", "write_protect_page"):
            section = whole[whole.index(f'id="f-{row.name}"'):]
            assert f"{row.same} of {row.statements} the same</small>" in section[:section.index("</h2>")]
    assert '<i class="why">not here: there are no notifiers</i>' in whole


def test_a_helper_has_a_bar_and_no_section(whole):
    assert '<section class="pair ours" id="f-write_protect_pte"' not in whole
    assert '<button type="button" class="bar" id="f-write_protect_pte" data-fold="write_protect_pte" aria-expanded="true">' in whole
    assert '<b>replace:</b> in the helper stable_tree_replace()' in whole
    lines = read_port().functions["write_protect_pte"]
    assert whole.count('data-part="write_protect_pte"') == lines.last - lines.first + 1


def test_there_is_no_such_function(subject):
    with pytest.raises(StudyError, match="no_such"):
        subject.pair("no_such")
