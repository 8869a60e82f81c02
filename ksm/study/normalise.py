# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""One form for what the two languages write differently.

    casts                       go
    x->f, x.f, (*x).f           x.f
    *x, x[0]                    *x
    x++, x += 1                 x = x + 1
    a > b, a <= b, a != b       b < a, !(b < a), !(a == b)
    x == NULL, x == 0           !x
    true, false, NULL           1, 0, 0
    g.x, g.m.x                  x: what the kernel has at file level
    f(g, x), f(g.m, x)          f(x)
    READ_ONCE_ulong(x)          READ_ONCE(x)
    stand-ins                   ksm/study/standins.py
    era_2011(g), until_6_1(g), since_7_3(g)     0: what 6.12 does is compared

Nothing is sorted, and nothing is dropped but what this table has: two statements are the same if their forms are equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache

from ksm.study.c_reader import CReader, c_tokens
from ksm.study.cython_reader import CythonReader, plain, python_tokens
from ksm.study.expressions import ONE, ZERO, Expr, Unreadable
from ksm.study.standins import IN_THE_KERNEL, IN_THE_PORT, WITHOUT_READERS

ERAS = ("era_2011", "until_6_1", "since_7_3")
_WORDS = {"NULL": ZERO, "True": ONE, "False": ZERO, "true": ONE, "false": ZERO}
_ONCE = re.compile(r"(READ_ONCE|WRITE_ONCE|smp_load_acquire|smp_store_release)_\w+")
_VARIABLE = re.compile(r"[A-Z]")

CONDITIONS = tuple(("name", name) for name in ("BUG_ON", "VM_BUG_ON", "WARN_ON_ONCE"))

Rule = tuple[Expr, Expr]
Small = dict[str, tuple[list[str], Expr]]  # functions that only return a value: parameters and value


def number(expr: Expr) -> bool:
    return bool(expr[0] == "number")


def truth(expr: Expr) -> bool | None:
    """Whether a constant is true; None for anything else."""
    return bool(expr[1]) if number(expr) else None


def asked(expr: Expr) -> Expr:
    """The expression as a condition, where !!x is x."""
    while expr[:2] == ("one", "!") and expr[2][:2] == ("one", "!"):
        expr = expr[2][2]
    return expr


def inverted(expr: Expr) -> Expr:
    expr = asked(expr)
    known = truth(expr)
    return ("one", "!", expr) if known is None else ZERO if known else ONE


def comparison(op: str, a: Expr, b: Expr) -> Expr:
    if op in ("!=", "<=", ">="):
        return inverted(comparison({"!=": "==", "<=": ">", ">=": "<"}[op], a, b))
    if op == ">":
        op, a, b = "<", b, a
    if number(a) and number(b):
        return ONE if (a[1] == b[1] if op == "==" else a[1] < b[1]) else ZERO
    if op == "==" and b == ZERO:
        return inverted(a)
    return ("two", op, a, b)


def simplified(expr: Expr) -> Expr:
    """One step of the table above, for an expression whose parts have their form."""
    kind = expr[0]
    if kind == "name":
        return _WORDS.get(expr[1], expr)
    if kind == "get" and expr[1][0] == "one" and expr[1][1] in "*&":
        return ("get", expr[1][2], expr[2])
    if kind == "at" and expr[2] == ZERO:
        return simplified(("one", "*", expr[1]))
    if kind == "call" and expr[1] in CONDITIONS:
        return (*expr[:2], *map(asked, expr[2:]))
    if kind == "one":
        return unary(expr[1], expr[2])
    if kind == "two":
        return binary(expr[1], expr[2], expr[3])
    if kind == "if":
        known = truth(expr[1])
        then: Expr = expr[2]
        otherwise: Expr = expr[3]
        return ("if", asked(expr[1]), then, otherwise) if known is None else then if known else otherwise
    return expr


def unary(op: str, x: Expr) -> Expr:
    if op in "*&" and x[0] == "one" and x[1] in "*&" and x[1] != op:
        inner: Expr = x[2]
        return inner
    if op == "&" and x[0] == "at":
        return ("two", "+", x[1], x[2])
    if op == "-" and number(x):
        return ("number", -x[1])
    return inverted(x) if op == "!" else ("one", op, x)


def binary(op: str, a: Expr, b: Expr) -> Expr:
    if op in ("==", "!=", "<", ">", "<=", ">="):
        return comparison(op, a, b)
    if op in ("&&", "||"):
        for one, other in ((a, b), (b, a)):
            known = truth(one)
            if known is not None:
                # `a && false` is false here even if `a` does something: only eras are such constants.
                return other if known == (op == "&&") else ZERO if op == "&&" else ONE
        a, b = asked(a), asked(b)
    if op in "+-" and number(a) and number(b):
        return ("number", a[1] + b[1] if op == "+" else a[1] - b[1])
    return ("two", op, a, b)


def rebuilt(expr: Expr, one: Callable[[Expr], Expr]) -> Expr:
    """The expression with `one` applied to its parts."""
    return (expr[0], *(one(part) if isinstance(part, tuple) else part for part in expr[1:]))


def matched(pattern: Expr, expr: Expr, found: dict[str, Expr]) -> bool:
    """Is `expr` of this form? A letter in the pattern stands for anything."""
    if pattern[0] == "name" and _VARIABLE.fullmatch(pattern[1]):
        return found.setdefault(pattern[1], expr) == expr
    if len(pattern) != len(expr) or pattern[0] != expr[0]:
        return False
    return all(matched(p, e, found) if isinstance(p, tuple) and isinstance(e, tuple) else p == e
               for p, e in zip(pattern[1:], expr[1:], strict=True))


def filled(pattern: Expr, found: dict[str, Expr]) -> Expr:
    if pattern[0] == "name" and pattern[1] in found:
        return found[pattern[1]]
    return rebuilt(pattern, lambda part: filled(part, found))


def by_name(rules: Iterable[Rule]) -> dict[Expr, list[Rule]]:
    """The rules by what their pattern calls or is."""
    result: dict[Expr, list[Rule]] = {}
    for rule in rules:
        result.setdefault(head(rule[0]), []).append(rule)
    return result


def head(expr: Expr) -> Expr:
    return expr[1] if expr[0] == "call" else expr[:2] if expr[0] in ("one", "two") else expr[:1] if expr[0] in ("get", "set") else expr


class Normaliser:
    """Brings expressions of one side into their form: its rules, and those that were used."""

    def __init__(self, rules: dict[Expr, list[Rule]]) -> None:
        self.rules = rules
        self.used: set[Rule] = set()

    def __call__(self, expr: Expr) -> Expr:
        expr = self.own(rebuilt(expr, self))
        for pattern, replacement in self.rules.get(head(expr), ()):
            found: dict[str, Expr] = {}
            if matched(pattern, expr, found):
                self.used.add((pattern, replacement))
                return self.inner(filled(replacement, found))
        return expr

    def inner(self, expr: Expr) -> Expr:
        """The expression with all its parts simplified, without the rules."""
        return simplified(rebuilt(expr, self.inner))

    def own(self, expr: Expr) -> Expr:
        return simplified(expr)


class PortNormaliser(Normaliser):
    def __init__(self, rules: dict[Expr, list[Rule]], small: Small | None = None) -> None:
        super().__init__(rules)
        self.small = small or {}

    def own(self, expr: Expr) -> Expr:
        if expr[0] == "name":
            name = _ONCE.sub(r"\1", expr[1].removeprefix("struct_"))
            return simplified(("name", name))
        if expr[0] == "call":
            name, arguments = expr[1], expr[2:]
            if name[0] == "name" and name[1] in ERAS:
                return ZERO
            if name[0] == "name" and name[1] in self.small and name not in self.rules:
                params, value = self.small[name[1]]
                if len(params) == len(arguments):
                    return self(filled(value, dict(zip(params, arguments, strict=True))))
            return simplified(("call", name, *(part for part in arguments if not is_machine(part))))
        expr = simplified(expr)
        if expr[0] == "get" and is_machine(expr[1]):
            return ("name", expr[2])
        if expr[0] == "two" and expr[1] == "-" and expr[3][:2] == ("one", "&") and expr[3][2][:2] == ("get", ZERO):
            return ("call", ("name", "entry"), expr[2], ("name", expr[3][2][2]))
        return expr


def is_machine(expr: Expr) -> bool:
    """Whether it is the machine, its globals or its ring of trace events: the kernel has one of each, and passes none of them along."""
    if expr[0] == "get":
        return expr[2] == "machine" or (expr[2] == "ksm" and is_machine(expr[1]))
    return expr in (("name", "g"), ("name", "m"), ("name", "ksm"), ("one", "&", ("name", "trace")))


def is_entry(expr: Expr) -> bool:
    """Whether it is a container_of()."""
    return expr[:2] == ("call", ("name", "entry"))


def c_expression(text: str) -> Expr:
    return CReader(c_tokens(text)).expression()


def port_expression(text: str) -> Expr:
    reader = CythonReader(plain(python_tokens(text)))
    expr = reader.expression()
    if reader.accept("="):
        expr = ("set", expr, reader.expression())
    if reader.peek():
        raise Unreadable(f"{reader.peek()!r} was not expected")
    return expr


@cache
def kernel_normaliser(stores: bool = True) -> Normaliser:
    """`stores`: WRITE_ONCE() is told from a plain store."""
    bare = Normaliser({})
    rules = IN_THE_KERNEL if stores else (*IN_THE_KERNEL, *WITHOUT_READERS)
    return Normaliser(by_name((bare(c_expression(a)), bare(c_expression(b))) for a, b, _ in rules))


@cache
def port_rules() -> dict[Expr, list[Rule]]:
    port, kernel = PortNormaliser({}), kernel_normaliser()
    return by_name((port(port_expression(a)), kernel(c_expression(b))) for a, b, _ in IN_THE_PORT)
