# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Which lines of the port run in which era.

A line does not run in an era if it stands in a branch that asks for another one (era_2011(g), until_6_1(g), since_7_3(g)), behind a return
that this era always takes, or in a function that no line of the era calls; or if it makes a file of sysfs that the era does not have. A
function that the era's mm/ksm.c does not have may still be called here, and does nothing then: functions_of() knows those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

from ksm.study.cython_reader import CythonFunction
from ksm.study.expressions import Expr, Unreadable
from ksm.study.functions import Function, Source, without_words
from ksm.study.statements import Statement

ERAS = ("2.6.38", "6.1", "6.12", "7.3")  # the oldest first
FUNCTIONS = Path(__file__).with_name("functions.json")

# How the port asks for an era, and in which ones the answer is yes.
QUESTIONS: dict[str, frozenset[str]] = {
    "era_2011": frozenset(ERAS[:1]), "until_6_1": frozenset(ERAS[:2]), "since_7_3": frozenset(ERAS[3:]),
    "ksm_pages_move": frozenset(ERAS[1:]),
}
_SINCE = {"ERA_2_6_38": 0, "ERA_6_1": 1, "ERA_6_12": 2, "ERA_7_3": 3}
_ASKS = re.compile(rf"\b(?:{'|'.join(QUESTIONS)})\b|\b_?ERA_\d")
_FILE = re.compile(r"\bksm_attr\([^()]*\b(ERA_\w+)\)")
_NAME = re.compile(r"[A-Za-z_]\w*")


def answer(expr: Expr | None, era: str) -> bool | None:
    """What a condition is in an era; None if that depends on more."""
    if expr is None:
        return None
    kind = expr[0]
    if kind == "call" and expr[1][0] == "name" and expr[1][1] in QUESTIONS:
        return era in QUESTIONS[expr[1][1]]
    if kind == "get" and expr[2] in QUESTIONS:
        return era in QUESTIONS[expr[2]]
    if kind == "one" and expr[1] == "!":
        inner = answer(expr[2], era)
        return None if inner is None else not inner
    if kind == "two" and expr[1] in ("&&", "||"):
        left, right = answer(expr[2], era), answer(expr[3], era)
        decides = bool(expr[1] == "||")
        if decides in (left, right):
            return decides
        return None if None in (left, right) else not decides
    return None


class _Body:
    """The lines of one function that an era never comes to."""

    def __init__(self, name: str, first: int, text: str, era: str) -> None:
        reader = CythonFunction(text, first)
        code = reader.function(name)
        self.era = era
        # Of a token, start counts from the beginning of the file, and end from that of the function.
        self.ends = {line.tokens[0].start[0]: line.tokens[-1].end[0] + first - 1 for line in reader.lines}
        self.found: set[int] = set()
        self.block(code.body)

    def last(self, statements: list[Statement]) -> int:
        """The last line of a block."""
        found = 0
        for statement in statements:
            found = max(found, self.ends.get(statement.line, statement.line), self.last(statement.body), self.last(statement.orelse))
        return found

    def block(self, statements: list[Statement]) -> bool:
        """Go through a block: whether this era always leaves it before its end."""
        for number, statement in enumerate(statements):
            if self.leaves(statement):
                if rest := statements[number + 1:]:
                    self.found.update(range(self.last(statements[:number + 1]) + 1, self.last(rest) + 1))
                return True
        return False

    def leaves(self, statement: Statement) -> bool:
        if statement.kind in ("return", "break", "continue"):
            return True
        if statement.kind != "if":
            self.block(statement.body)
            self.block(statement.orelse)
            return False
        said = answer(statement.expr, self.era)
        head = self.ends.get(statement.line, statement.line)
        end = max(head, self.last(statement.body))
        if said is False:
            # Without an else, nothing of the statement is left.
            self.found.update(range(head + 1 if statement.orelse else statement.line, end + 1))
            return bool(statement.orelse) and self.block(statement.orelse)
        if said is True:
            self.found.update(range(end + 1, self.last(statement.orelse) + 1))
            return self.block(statement.body)
        ways = [self.block(statement.body), self.block(statement.orelse)]
        return bool(statement.orelse) and all(ways)


def unreached(function: Function, era: str) -> frozenset[int]:
    """The lines of a function that the era never comes to; none of a function that cannot be read."""
    return _unreached(function.name, function.first, function.text, era)


@lru_cache(4096)
def _unreached(name: str, first: int, text: str, era: str) -> frozenset[int]:
    if not _ASKS.search(text):
        return frozenset()
    try:
        return frozenset(_Body(name, first, text, era).found) | frozenset(_files(first, text, era))
    except (Unreadable, StopIteration, IndexError):
        return frozenset()


def _files(first: int, text: str, era: str) -> Iterator[int]:
    """The lines that make a file of sysfs which the era does not have."""
    for found in _FILE.finditer(text):
        if _SINCE[found[1]] > ERAS.index(era):
            yield from range(first + text.count("\n", 0, found.start()), first + text.count("\n", 0, found.end()) + 1)


def _mentioned(source: Source, function: Function, era: str, skipped: frozenset[int]) -> Iterator[str]:
    """The functions of the file that a function names in an era."""
    for number, code in enumerate(without_words(function.text).split("\n"), function.first):
        if number in skipped:
            continue
        yield from (name for name in _NAME.findall(code) if name in source.functions and name != function.name)


def absent(source: Source) -> dict[int, frozenset[str]]:
    """For each line that does not run in every era, the eras in which it does not."""
    found: dict[int, set[str]] = {}
    anywhere = {name for function in source.functions.values() for name in _mentioned(source, function, ERAS[-1], frozenset())}
    for era in ERAS:
        skipped = {name: unreached(function, era) for name, function in source.functions.items()}
        # What nobody in the file names is called from outside.
        waiting = [name for name in source.functions if name not in anywhere or name in QUESTIONS]
        reached = set(waiting)
        while waiting:
            name = waiting.pop()
            for other in _mentioned(source, source.functions[name], era, skipped[name]):
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        for name, function in source.functions.items():
            lines = skipped[name] if name in reached else range(function.first, function.last + 1)
            for line in lines:
                found.setdefault(line, set()).add(era)
    return {line: frozenset(eras) for line, eras in sorted(found.items())}


def asks(line: str) -> bool:
    """Whether a line of the port asks for the era."""
    return bool(_ASKS.search(line.partition("#")[0]))


@cache
def functions_of() -> dict[str, list[str]]:
    """The functions that mm/ksm.c of each era's kernel has: functions.json. Those of 2.6.38 are from 3.0, less what came later."""
    known: dict[str, list[str]] = json.loads(FUNCTIONS.read_text())
    return known
