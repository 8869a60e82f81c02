# SPDX-License-Identifier: GPL-2.0-only
"""The port does what the kernel's files do, statement by statement. What it does otherwise is marked, and what is missing is named.

The kernel's text comes from Debian's package linux-source-6.12: see tests/conftest.py. How it is compared: docs/same.md.
"""

import re
from pathlib import Path

import pytest

from ksm.study import normalise
from ksm.study.base import base_hashes
from ksm.study.cython_reader import read_cython
from ksm.study.flow import prepared
from ksm.study.functions import code_hash, cython_source
from ksm.study.kernel import read_kernel
from ksm.study.normalise import kernel_normaliser
from ksm.study.same import PAIRS, Port, compare, compare_function, kernel_bodies, port_texts, tables
from ksm.study.share import differences, percent, written
from ksm.study.standins import IN_THE_KERNEL, IN_THE_PORT, OMITTED, WITHOUT_READERS

pytestmark = pytest.mark.once

README = Path(__file__).parents[2] / "README.md"
PAGE = README.parent / "docs/same.md"
KSM, RBTREE, _ = PAIRS


@pytest.fixture(scope="module")
def kernel(kernel_source):
    return read_kernel(str(kernel_source))


@pytest.fixture(scope="module")
def found(kernel):
    return tables(kernel)


@pytest.fixture(scope="module")
def changed(kernel):
    """Functions that a later 6.12 of Debian has changed. The port follows the version of the hashes."""
    return {name for name, function in kernel.source.functions.items() if code_hash(function.text) != base_hashes().get(name)}


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=[pair.kernel[-1] for pair in PAIRS])
def test_every_statement_is_the_kernels_or_marked_and_none_is_missing_unnamed(found, changed, number):
    table = found[number]
    assert len(table.rows) > 20
    assert [line for row in (*table.rows, *table.ours) if row.name not in changed for line in differences(row)] == []
    for row in table.rows:
        assert row.same + row.replaced + row.omitted == row.statements or row.name in changed, row.name


def test_how_much_is_the_same(found):
    total = found[0].total()
    assert total.statements > 1200
    assert total.same > 0.95 * total.statements
    assert found[1].total().same > 0.95 * found[1].total().statements


def test_the_tables_of_the_page(found, changed):
    if changed:
        pytest.skip("a later 6.12 than that of the hashes")
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page, found), "python -m ksm.study.share TREE docs/same.md writes them anew"
    total = found[0].total()
    assert f"{total.same:,} of {total.statements:,} in `mm/ksm.c`, {percent(total)}" in README.read_text(encoding="utf-8")


def test_every_stand_in_and_every_omission_is_needed(kernel, found):
    theirs = {rule[0] for stores in (True, False) for rule in kernel_normaliser(stores).used}
    ours = {rule[0] for table in found for rule in table.used}
    bare, bare_port = normalise.Normaliser({}), normalise.PortNormaliser({})
    for pattern, _, _ in (*IN_THE_KERNEL, *WITHOUT_READERS):
        assert bare(normalise.c_expression(pattern)) in theirs, pattern
    for pattern, _, _ in IN_THE_PORT:
        assert bare_port(normalise.port_expression(pattern)) in ours, pattern
    assert set(OMITTED) <= {name for table in found for row in table.rows for name in row.left_out}


# Deviations put in on purpose

DEVIATIONS = {
    "argument": (KSM, "stable_node_dup", "__is_page_sharing_candidate(g, found, 1)", "__is_page_sharing_candidate(g, found, 1, 0)"),
    "two swapped": (KSM, "alloc_stable_node_chain", """\
        chain.rmap_hlist_len = STABLE_NODE_CHAIN
        chain.nid = NUMA_NO_NODE
""", """\
        chain.nid = NUMA_NO_NODE
        chain.rmap_hlist_len = STABLE_NODE_CHAIN
"""),
    "left out": (KSM, "remove_rmap_item_from_tree", """\
        rmap_item.head = NULL
        rmap_item.address &= page_mask()
        ksm_step""", """\
        rmap_item.address &= page_mask()
        ksm_step"""),
    "left out before a return": (KSM, "cmp_and_merge_page", "        put_page(g.m, kpage)\n        return\n\n    if until_6_1(g):",
                                 "        return\n\n    if until_6_1(g):"),
    "question left out": (KSM, "write_protect_page", "    if WARN_ON_ONCE(folio_test_large(folio)):\n        return err\n", ""),
    "added": (KSM, "break_cow", "    mmap_read_unlock(mm)\n    ksm_step(g.m, STEP_BREAK_COW",
              "    cpu_relax()\n    mmap_read_unlock(mm)\n    ksm_step(g.m, STEP_BREAK_COW"),
    "comparison": (KSM, "stable_tree_search", "if folio_mapcount(folio) > 1:\n                        return", """\
if folio_mapcount(folio) >= 1:
                        return"""),
    "value of a part": (KSM, "ksm_get_folio", "            return <struct_folio *>ERR_PTR(-EBUSY)\n    elif",
                        "            return NULL\n    elif"),
    "way on": (KSM, "get_next_rmap_item", "        if rmap_item.address > addr:\n            break\n",
               "        if rmap_item.address > addr:\n            continue\n"),
    "constant": (KSM, "pages_volatile_show", "        ksm_pages_volatile = 0\n", "        ksm_pages_volatile = 1\n"),
    "out of its block": (KSM, "run_store", "                count = <size_t>err\n", "            count = <size_t>err\n"),
    "parameter": (KSM, "skip_age", "cdef unsigned int skip_age(rmap_age_t age)", "cdef unsigned int skip_age(rmap_age_t old)"),
    "no mark": (KSM, "folio_migrate_ksm", "    # OURS: ksm_get_folio() reads it without a lock", ""),
    "mark without a reason": (KSM, "folio_migrate_ksm", "    # OURS: ksm_get_folio() reads it without a lock", "    # OURS"),
    "mark of what is the kernel's": (KSM, "skip_age", "    if age <= 3:\n", "    if age <= 3:        # OURS: why not\n"),
    "missing and not named": (KSM, "ksm_might_need_to_copy", "    # Not here: mem_cgroup_charge: there are no control groups\n", ""),
    "named and not missing": (KSM, "skip_age", "    if age <= 3:\n", "    # Not here: cpu_relax: nobody waits\n    if age <= 3:\n"),
    "function without a mark": (KSM, "ksmd_wait", "    # OURS: wait_event_freezable().\n", ""),
    "part that is not called": (KSM, "unmerge_and_remove_all_rmap_items", "        err = unmerge_mm(mm, &vmi)\n", ""),
    "argument in a tree": (RBTREE, "rb_replace_node", "    __rb_change_child(victim, new, parent, root)\n",
                           "    __rb_change_child(victim, new, root)\n"),
    "child": (RBTREE, "rb_next_postorder", "rb_left_deepest_node(parent.rb_right)", "rb_left_deepest_node(parent.rb_left)"),
}


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_is_found(kernel, name):
    pair, function, old, new = DEVIATIONS[name]
    texts = port_texts(pair)
    assert texts[0].count(old) == 1
    table = compare(pair, [kernel.texts[file] for file in pair.kernel], [texts[0].replace(old, new), *texts[1:]])
    assert {each.function for each in table.total().differences} == {function}


def statements_of(lines, function):
    """The numbers of the lines that are a whole statement, and whose mutation has to be found. Left out are marked lines, steps of a
    recording, branches of other eras, and first values that only quiet the C compiler."""
    for number in range(function.first, function.last):
        line, above = lines[number], number - 1
        code = line.split("  #")[0].strip()
        while lines[above].strip().startswith("#") and "OURS" not in lines[above]:
            above -= 1
        if not STATEMENT.fullmatch(code) or code.count("(") != code.count(")") or lines[number - 1].rstrip().endswith((",", "(")):
            continue
        marked = re.search(r"OURS|ksm_step|era_2011|until_6_1|since_7_3", line + lines[above])
        if not marked and code not in QUIET and not inside(lines, number):
            yield number


STATEMENT = re.compile(r"[\w.]+(?:\[0\])? [-+|&]?= [^#]*[^,(\\]|\w+\(.*\)")
CALL = re.compile(r"(?:^\s*|= )\w+\(.*\)$")
QUIET = ("folio = NULL", "tmp_page = NULL")


def inside(lines, number):
    """Whether the line is inside a block of another era, or a block that is marked as a whole."""
    indent = len(lines[number]) - len(lines[number].lstrip())
    for line in reversed(lines[:number]):
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth < indent:
            if re.search(r"(?<!not )(era_2011|until_6_1|since_7_3)\(|OURS", line):
                return True
            indent = depth
    return False


@pytest.mark.slow
@pytest.mark.parametrize("pair", [KSM, RBTREE], ids=["ksm", "rbtree"])
def test_each_statement_that_is_left_out_or_has_an_argument_more_is_found(kernel, pair):
    texts = port_texts(pair)
    theirs = kernel_bodies(tuple(kernel.texts[name] for name in pair.kernel), pair.stores)
    port = Port(texts, set(theirs))
    lines = texts[0].split("\n")
    tried = 0
    for function in cython_source(texts[0]).functions.values():
        name = port.codes[function.name].part_of or function.name
        if name not in theirs:
            continue
        for number in statements_of(lines, function):
            line = lines[number]
            code = line.split("  #")[0].rstrip()
            mutations = [code[:len(line) - len(line.lstrip())] + "pass"]
            if CALL.search(code):
                mutations.append(code[:-1] + ("7)" if code.endswith("()") else ", 7)"))
            for instead in mutations:
                text = "\n".join([*lines[function.first - 1:number], instead, *lines[number + 1:function.last]])
                bodies = {**port.bodies, function.name: prepared(read_cython(function.name, text, function.first), port.normaliser)}
                parts = {part: body for part, body in bodies.items() if body.code.part_of == name}
                assert compare_function(theirs[name], bodies[name], parts).differences, f"{function.name}: {instead} for {code}"
                tried += 1
    assert tried > (1000 if pair is KSM else 150)
