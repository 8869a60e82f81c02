# SPDX-License-Identifier: GPL-2.0-only
"""How two functions are compared, on functions of our own: what is the same, and what is not."""

import json

import pytest
from click.testing import CliRunner

from ksm.cli.group import main
from ksm.study.c_reader import read_c
from ksm.study.cython_reader import read_cython
from ksm.study.expressions import Unreadable, text_of
from ksm.study.kernel import read_kernel
from ksm.study.normalise import PortNormaliser as Normaliser
from ksm.study.normalise import c_expression, kernel_normaliser, port_expression, port_rules
from ksm.study.same import Pair, compare
from ksm.study.share import as_text, written


def table(kernel, port, stores=True):
    return compare(Pair(("x.c",), ("x.pyx",), {}, stores), [kernel], [port])


def difference(kernel, port, **options):
    """The texts of all differences, in f() and in all other functions."""
    found = table(kernel, port, **options)
    return [each.text for row in (*found.rows, *found.ours) for each in row.differences]


def c(body, params="int a, int b"):
    lines = "\n".join(f"\t{line}" for line in body.split("\n"))
    return f"static int f({params})\n{{\n{lines}\n}}\n"


def py(body, params="int a, int b"):
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    return f"cdef int f({params}) noexcept nogil:\n{lines}\n"


# Expressions

@pytest.mark.parametrize(("kernel", "port"), [
    ("x->y.z", "x.y.z"), ("(*x).y", "x.y"), ("(&x)->y", "x.y"), ("*x", "x[0]"), ("&x[n]", "x + n"), ("*&x", "x"),
    ("(unsigned long)x + 1UL", "<unsigned long>x + 1"), ("(struct a *)x", "<a *>x"), ("sizeof(struct a)", "sizeof(struct_a)"),
    ("!x", "x == NULL"), ("!x", "not x"), ("!x", "x is NULL"), ("x == 0", "not x"), ("a > b", "b < a"), ("a >= b", "not (a < b)"),
    ("a && !b || c", "(a and not b) or c"), ("a & b && c == d", "a & b and c == d"), ("(a & b) == c", "(a & b) == c"),
    ("c ? a : b", "a if c else b"), ("x >= a && x < b", "a <= x < b"), ("a / b % c", "a // b % c"), ("0x10", "16"), ('"a"', 'b"a"'),
    ("READ_ONCE(x)", "READ_ONCE_ulong(x)"), ("f(a)", "f(g.m, a)"), ("f(a)", "f(g, a)"), ("trace(a)", "trace(&g.trace, a)"),
    ("ksm_run & A", "g.ksm_run & A"), ("~(A | B)", "~(A | B)"), ("f(a)(b)", "f(a)(b)"), ("likely(x)", "x"),
    ("rb_entry(x, struct a, node)", "<a *>(<char *>x - <size_t>&(<a *>NULL).node)"),
])
def test_the_same_expression(kernel, port):
    assert kernel_normaliser()(c_expression(kernel)) == Normaliser(port_rules())(port_expression(port))


@pytest.mark.parametrize(("kernel", "port"), [
    ("a & b == c", "(a & b) == c"), ("a - b", "b - a"), ("a < b", "a <= b"), ("f(a, b)", "f(a)"), ("x->y", "x.z"), ("*x", "x"),
    ("a && b", "a or b"), ("READ_ONCE(x)", "x"), ("!a", "a"), ("1", "2"), ("-a", "a"), ("x[1]", "x[2]"), ('"a"', '"b"'),
])
def test_another_expression(kernel, port):
    assert kernel_normaliser()(c_expression(kernel)) != Normaliser(port_rules())(port_expression(port))


def test_an_expression_as_c():
    assert text_of(Normaliser(port_rules())(port_expression("g.x[0].y if a and not b else f(c, 1)"))) == "(a && !b) ? x.y : f(c, 1)"


# Ways

SAME = {
    "goto and return": ("""
        int err = -EFAULT;
        if (!a) goto out;
        err = g1(b);
    out:
        return err;""", """
        cdef int err
        if not a:
            return -EFAULT
        err = g1(b)
        return err"""),
    "goto again and a flag": ("""
    again:
        a = next(b);
        while (a) {
            if (bad(a)) goto again;
            a = left(a);
        }
        return 0;""", """
        cdef bint again
        while True:
            a = next(b)
            again = False
            while a:
                if bad(a):
                    again = True
                    break
                a = left(a)
            if not again:
                break
        return 0"""),
    "a tail that is copied": ("""
        if (a) { one(); goto unlock; }
        if (b) { two(); goto unlock; }
        three();
    unlock:
        unlock(a);
        return 0;""", """
        if a:
            one()
            unlock(a)
            return 0
        if b:
            two()
        else:
            three()
        unlock(a)
        return 0"""),
    "for, while and range": ("""
        int i;
        for (i = 0; i < a; i++) { if (odd(i)) continue; count(i); }
        do { a = half(a); } while (a > b);
        return a;""", """
        cdef int i
        for i in range(a):
            if not odd(i):
                count(i)
        while True:
            a = half(a)
            if not a > b:
                break
        return a"""),
    "switch": ("""
        switch (a) {
        case ONE: one(); break;
        case TWO: two(); fallthrough;
        case THREE: three(); break;
        default: return b;
        }
        return 0;""", """
        if a == ONE:
            one()
        elif a == TWO or a == THREE:
            if a == TWO:
                two()
            three()
        else:
            return b
        return 0"""),
    "?: and return of a question": ("""
        a = b ? one(b) : 2;
        b = a ?: 1;
        return a > b;""", """
        if b:
            a = one(b)
        else:
            a = 2
        b = a if a else 1
        if b < a:
            return True
        return False"""),
    "steps in questions": ("""
        while (a-- && b)
            visit(b);
        return b;""", """
        while a:
            a -= 1
            if not b:
                break
            visit(b)
        return b"""),
    "twice, counted": ("""
        int round = 0;
    again:
        visit(a, round);
        if (!round++)
            goto again;
        return b;""", """
        cdef int round
        for round in range(2):
            visit(a, round)
        return b"""),
    "a list": ("""
        struct item *i, *next;
        list_for_each_entry_safe(i, next, &head, link) {
            if (skip(i))
                continue;
            drop(i);
        }
        return 0;""", """
        cdef list_head *pos
        cdef list_head *next
        cdef item *i
        pos = head.next
        while pos != &head:
            next = pos.next
            i = <item *>(<char *>pos - <size_t>&(<item *>NULL).link)
            pos = next
            if skip(i):
                continue
            drop(i)
        return 0"""),
    "vmas": ("""
        struct vm_area_struct *vma;
        VMA_ITERATOR(vmi, a, 0);
        for_each_vma(vmi, vma) {
            if (vma->vm_flags & b) continue;
            visit(vma);
        }
        return 0;""", """
        cdef vma_iterator vmi
        cdef vm_area_struct *vma
        vma_iter_init(&vmi, a, 0)
        vma = vma_next(&vmi)
        while vma != NULL:
            if not vma.vm_flags & b:
                visit(vma)
            vma = vma_next(&vmi)
        return 0"""),
    "declarations": ("""
        int x = a, *y = &b;
        struct page *p = NULL;
        return use(x, y, p);""", """
        cdef int x = a
        cdef int *y = &b
        return use(x, y, NULL)"""),
    "#else": ("""
    #ifdef CONFIG_NUMA
        a = 1 + b;
    #else
        a = 0;
    #endif
        return a;""", """
        a = 1 + b
        return a"""),
    "a read with more care": ("return a->x & b;", "return READ_ONCE_int(a.x) & b"),
    "the era of 2011": ("if (a) one(); return b;", """
        if era_2011(g):
            return old(a)
        if a and not era_2011(g):
            one()
        return b if not era_2011(g) else 0"""),
    "the era 6.1": ("if (a) one(); else two(); return b;", """
        if a:
            one()
        elif not until_6_1(g):
            two()
        if until_6_1(g):
            return two()
        return b"""),
    "a recording": ("one(a); return b;", "ksm_step(g.m, STEP, a)\n        one(a)\n        ksm_step(g.m, STEP, b)\n        return b"),
}


def dedented(text):
    return "\n".join(line.removeprefix("        ") for line in text.split("\n"))


@pytest.mark.parametrize("name", SAME)
def test_the_same(name):
    kernel, port = SAME[name]
    found = table(c(kernel), py(dedented(port)))
    assert difference(c(kernel), py(dedented(port))) == []
    assert found.rows[0].same == found.rows[0].statements > 0


DIFFERENT = {
    "moved out of its block": ("if (a) { one(); two(); } return 0;", "if a:\n    one()\ntwo()\nreturn 0"),
    "moved into a block": ("if (a) { one(); } two(); return 0;", "if a:\n    one()\n    two()\nreturn 0"),
    "else": ("if (a) one(); else two(); return 0;", "if a:\n    one()\ntwo()\nreturn 0"),
    "order of questions": ("if (f1(a) && f2(b)) one(); return 0;", "if f2(b) and f1(a):\n    one()\nreturn 0"),
    "other value on one way": ("int e = -1; if (a) goto out; e = 0; out: return e;", "if a:\n    return -2\nreturn 0"),
    "break and continue": ("while (a) { if (b) break; a = next(a); } return 0;",
                           "while a:\n    if b:\n        continue\n    a = next(a)\nreturn 0"),
    "a careless read": ("return READ_ONCE(a->x);", "return a.x"),
    "a careful store": ("a->x = b; return 0;", "WRITE_ONCE_int(a.x, b)\nreturn 0"),
    "an element that may go": ("list_for_each_entry_safe(i, n, &head, link) drop(i); return 0;", """\
pos = head.next
while pos != &head:
    i = <item *>(<char *>pos - <size_t>&(<item *>NULL).link)
    drop(i)
    pos = pos.next
return 0"""),
    "a value that is not the same": ("int x = 0; if (a) x = 1; return use(x);",
                                     "cdef int x = 0\nif a:\n    x = 1\nelse:\n    x = 1\nreturn use(x)"),
    "a value in another variable": ("int x = 0; return use(x, b);", "cdef int x = 0\nreturn use(b, x)"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different(name):
    kernel, port = DIFFERENT[name]
    assert difference(c(kernel), py(port)) != []


# Marks, and what is missing

def test_what_is_ours_is_passed_over_if_it_is_marked():
    kernel = c("one(a); return b;")
    assert difference(kernel, py("one(a)\nextra(b)\nreturn b")) != []
    assert difference(kernel, py("one(a)\nextra(b)     # OURS: a reason\nreturn b")) == []
    assert difference(kernel, py("one(a)\n# OURS: a reason\nextra(b)\nreturn b")) == []
    assert difference(kernel, py("one(a)\n# OURS: a reason\n\nextra(b)\nreturn b")) != []
    [text] = difference(kernel, py("one(a)\nextra(b)     # OURS\nreturn b"))
    assert "no reason" in text


def test_a_mark_behind_a_colon_counts_for_the_block_and_one_above_for_the_line():
    kernel = c("one(a); return b;")
    block = "{}if known(a):{}\n    extra(a)\none(a)\nreturn b"
    assert difference(kernel, py(block.format("", "     # OURS: a reason"))) == []
    [text] = difference(kernel, py(block.format("# OURS: a reason\n", "")))
    assert text == "extra(a): the kernel does not have that"
    inner = "{}if known(a):{}\n    one(a)\nelse:\n    one(a)\nreturn b"
    assert difference(kernel, py(inner.format("# OURS: a reason\n", ""))) == []
    [text] = difference(kernel, py(inner.format("", "     # OURS: a reason")))
    assert "is the kernel's, and is marked" in text


def test_what_a_mark_stands_for():
    assert difference(c("a = kthread_run(b); return a;"), py("start(b)       # OURS: kthread_run()\nreturn a")) == []
    assert difference(c("a = kthread_run(b); return a;"), py("start(b)       # OURS: a thread\nreturn a")) != []
    loop = "# OURS: {}\nwhile descend(&new):\n    visit(new[0])\nreturn 0"
    assert difference(c("while (*new) visit(*new); return 0;"), py(loop.format("new[0] != NULL, by keys"))) == []
    assert difference(c("while (*new) visit(*new); return 0;"), py(loop.format("new != NULL, by keys"))) != []
    assert difference(c("a->x |= F; return 0;"), py("WRITE_ONCE_int(a.x, a.x | F)        # OURS: others read it\nreturn 0")) == []
    assert difference(c("a->x |= F; return 0;"), py("WRITE_ONCE_int(a.x, a.x | G)        # OURS: others read it\nreturn 0")) != []


def test_a_marked_line_does_not_hide_one_that_is_missing():
    assert difference(c("one(a, b); two(a); return 0;"), py("two(a)\nreturn 0")) != []
    assert difference(c("one(a, b); two(a); return 0;"), py("hook(a, b)       # OURS: a reason\ntwo(a)\nreturn 0")) != []


def test_what_is_missing_is_named():
    kernel = c("if (charge(a, b)) { put(a); return 1; } one(a); return 0;")
    assert len(difference(kernel, py("one(a)\nreturn 0"))) > 1
    assert difference(kernel, py("# Not here: charge: nobody counts\none(a)\nreturn 0")) == []
    found = table(kernel, py("# Not here: charge: nobody counts\none(a)\nreturn 0")).rows[0]
    assert (found.same, found.omitted, found.left_out) == (2, 3, {"charge": "nobody counts"})
    # Half of the block
    assert difference(kernel, py("# Not here: charge: nobody counts\nif charge(a, b):\n    return 1\none(a)\nreturn 0")) != []
    [text] = difference(c("one(a); return 0;"), py("# Not here: charge: nobody counts\none(a)\nreturn 0"))
    assert "charge" in text


def test_functions_that_only_one_side_has():
    both, kernel, port = c("return a;"), c("return a;").replace(" f(", " g1("), py("return a").replace(" f(", " g2(")
    assert "not in the port" in difference(both + kernel, py("return a"))[0]
    assert "has no mark" in difference(both, py("one(a)\nreturn a") + port.replace("    return", "    one(a)\n    return"))[-1]
    assert difference(both, py("return a") + port.replace("    return", "    # OURS: a reason\n    one(a)\n    return")) == []


def test_parts_of_a_function():
    kernel = c("if (a) { lock(a); if (bad(b)) { unlock(a); return 1; } unlock(a); } done(b); return 0;")
    helper = "cdef int helper(int x, int b) noexcept nogil:\n    {}\n    if bad(b):\n        return 1\n    return 0\n"
    port = py("cdef int err\nif a:\n    lock(a)\n    err = helper(a, b)\n    unlock(a)\n    if err:\n        return err\ndone(b)\nreturn 0")
    assert difference(kernel, helper.format("# Part of f(): under the lock") + port) == []
    assert difference(kernel, helper.format("# Under the lock") + port) != []
    other = helper.format("# Part of f(): under the lock").replace("bad(b)", "bad(x)")
    assert "bad(a)" in "".join(difference(kernel, other + port))


def test_parameters():
    assert difference(c("return a;", "int a, int b"), py("return a", "ksm_globals *g, int a, int b")) == []
    assert "parameters b, a" in difference(c("return a;", "int a, int b"), py("return a", "int b, int a"))[0]
    assert "parameters a" in difference(c("return a;", "int a, int b"), py("return a", "int a"))[0]
    assert difference(c("return 1;", "void"), py("return 1", "machine *m")) == []


def test_stores_where_nobody_reads_without_a_lock():
    assert difference(c("WRITE_ONCE(a->x, b); return 0;"), py("a.x = b\nreturn 0"), stores=False) == []
    assert difference(c("WRITE_ONCE(a->x, b); return 0;"), py("a.x = b\nreturn 0")) != []


# What cannot be read

@pytest.mark.parametrize("body", ["a = ;", "if (a return 1;", "asm(\"nop\" : : );", "a = (b;", "return @;", "} }", "int x[] = {{1}, {2;"])
def test_c_that_is_not_understood_is_an_error_of_its_function(body):
    with pytest.raises(Unreadable):
        read_c("f", c(body), 1)


def test_a_function_of_the_kernel_that_cannot_be_read_or_is_too_long():
    [text] = difference(c("a = ({ b; });"), py("return a"))
    assert "cannot be compared" in text
    [text] = difference(c("one(a);\n" * 3000 + "return a;"), py("return a"))
    assert "too long" in text
    [text] = difference(c("hlist_for_each_entry(a, b) visit(a); return 0;"), py("return 0"))
    assert "2 arguments" in text
    [text] = difference(c("a = " + "(" * 5000 + "b" + ")" * 5000 + "; return a;"), py("return a"))
    assert "cannot be compared" in text


@pytest.mark.parametrize("body", ["with a:\n    pass", "a = [b for b in c]", "a = b c", "for a in b:\n    pass",
                                  "for a in range(1, 9, 2):\n    pass"])
def test_cython_that_is_not_understood_is_an_error(body):
    with pytest.raises(Unreadable):
        read_cython("f", py(body), 1)


# For readers

def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, ["study", *map(str, arguments)], prog_name="ksm", catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_the_command(linux):
    out, err = invoke("--kernel", linux, "--same")
    assert err == ""
    assert "95." in out and "lib/rbtree.c" in out and "cmp_and_merge_page " in out
    data = json.loads(invoke("--kernel", linux, "--same", "--json")[0])
    ksm = data["files"][0]
    assert data["kernel"].startswith("Linux 6.12")
    assert ksm["total"]["statements"] == sum(function["statements"] for function in ksm["functions"])
    assert {"name", "statements", "same", "marked", "named", "ours", "recording", "eras", "differences"} <= ksm["functions"][0].keys()


def test_a_kernel_that_differs(tiny):
    out, _ = invoke("--kernel", tiny, "--same")
    assert "cmp_and_merge_page(), kernel " in out and "unstable_tree_search_insert" in out
    [found] = json.loads(invoke("--kernel", tiny, "--same", "--json")[0])["files"]
    assert found["total"]["differences"] != []


@pytest.mark.parametrize("arguments", [["--same"], ["--kernel", "x", "--json"], ["--kernel", "x", "--same", "--diff", "f"],
                                       ["--kernel", "x", "--kernel", "y", "--same"]])
def test_wrong_usage(arguments):
    out, err = invoke(*arguments, code=2)
    assert out == "" and len(err.strip().split("\n")) == 1


def test_the_page_is_written_between_its_marks(linux):
    found = [table(c("return a;"), py("return a"))]
    page = written("before\n<!-- ksm study --same: begin -->\nwhat was\n<!-- ksm study --same: end -->\nafter\n", found)
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "what was" not in page and "| `x.c` | 1 | 1 |" in page
    assert written(page, found) == page
    assert "100.0 % the same" in as_text(found)
    assert read_kernel(str(linux)).texts.keys() >= {"mm/ksm.c", "lib/rbtree.c"}
