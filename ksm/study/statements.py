# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Functions of C and of Cython, read into the same statements.

Braces, labels, declarations without a value and docstrings are not statements. A declaration with a value is an assignment. goto, break
and continue are kept, because they say which statement comes next, but are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ksm.study.expressions import Expr, Token

FLOW = ("goto", "label", "break", "continue", "case", "block", "pass")  # not counted


@dataclass(eq=False)
class Statement:
    """One statement; `expr` is its value or condition.

    kind: "do", "if", "while", "dowhile", "for", "each" (a macro that loops), "switch", "return", and those of FLOW. `mark`: why it is
    ours, "" if the mark gives no reason, None without a mark. A mark behind a colon counts for the body too (`covers`), never for `orelse`.
    """

    kind: str
    line: int
    expr: Expr | None = None
    body: list[Statement] = field(default_factory=list)
    orelse: list[Statement] = field(default_factory=list)
    name: str = ""  # of a label
    init: list[Statement] = field(default_factory=list)
    step: list[Statement] = field(default_factory=list)
    mark: str | None = None
    covers: bool = False
    early: bool = False  # "each": the next element is known before the body runs
    declared: bool = False  # the value of a declaration
    origin: Statement | None = None  # the statement of which this is a copy

    def walk(self) -> Iterator[Statement]:
        yield self
        for part in (*self.init, *self.step, *self.body, *self.orelse):
            yield from part.walk()


@dataclass
class Code:
    """A function. `ours`: why the kernel does not have it. `part_of`: the function of the kernel of which it is a part."""

    name: str
    line: int
    params: list[str]
    body: list[Statement]
    locals: set[str] = field(default_factory=set)
    ours: str | None = None
    part_of: str = ""
    macro: bool = False
    not_here: dict[str, str] = field(default_factory=dict)  # names of the kernel's statement that is missing: why




def split(tokens: list[Token]) -> list[list[Token]]:
    """The tokens, split by the commas that stand outside of brackets."""
    result: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.text, 0)
        if token.text == "," and not depth:
            result.append([])
        else:
            result[-1].append(token)
    return [part for part in result if part]


def parameter_name(tokens: list[Token]) -> str:
    """The name of a parameter: the last name; of a pointer to a function, the name in the first brackets."""
    for at, token in enumerate(tokens):
        if token.text == "(" and tokens[at + 1].text == "*":
            return tokens[at + 2].text
    return next((token.text for token in reversed(tokens) if token.kind == "name"), "")
