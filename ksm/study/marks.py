# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Which lines of the port are not the kernel's: marks (OURS: reason), steps of a recording; and which helpers are a part of what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import takewhile

from ksm.study.cython_reader import MARK, NOT_HERE, PART_OF, CythonFunction, read_cython
from ksm.study.expressions import ZERO, Unreadable
from ksm.study.flow import RECORDING
from ksm.study.functions import Function, Source
from ksm.study.same import meant
from ksm.study.statements import Statement

STANDS = re.compile(r"\w+\(\)")  # a mark that begins with the kernel's function that the statement stands for


def helpers_of(port: Source) -> dict[str, list[str]]:
    """The port's helpers that are a part of one of the kernel's functions, by that function."""
    result: dict[str, list[str]] = {}
    for name, function in port.functions.items():
        for line in function.text.split("\n"):
            if found := PART_OF.match(line.strip()):
                result.setdefault(found[1], []).append(name)
                break
    return result


def not_the_kernels(port: Source, paired: frozenset[int] = frozenset()) -> frozenset[int]:
    """The lines of the port that the kernel does not have: calls of ksm_step(), and statements with a mark, with the comments above them.

    A function that is ours as a whole is not among them. Nor is a statement that stands for one of the kernel's: its line is in `paired`,
    or its mark begins with a call or an expression.
    """
    return frozenset(line for function in port.functions.values() for line in _in_function(function, paired))


@lru_cache(1024)
def _read(name: str, text: str, first: int) -> tuple[list[Statement], dict[int, int], bool]:
    """The statements of a function, the last line of each, and whether the function is ours."""
    try:
        code = read_cython(name, text, first)
        lines = CythonFunction(text, first).lines
    except (Unreadable, StopIteration, IndexError):
        return [], {}, False
    ends = {line.tokens[0].start[0]: line.tokens[-1].start[0] for line in lines}
    return code.body, ends, code.ours is not None


def _in_function(function: Function, paired: frozenset[int]) -> set[int]:
    found = set(_marked(function, paired))
    lines = dict(enumerate(function.text.split("\n"), function.first))
    for number, line in lines.items():
        # An "else" goes with its block.
        if line.strip().startswith("else:") and number not in found:
            block = takewhile(partial(_deeper, lines, line), range(number + 1, function.last + 1))
            if all(at in found for at in block if lines[at].strip()):
                found.add(number)
    return found


def _deeper(lines: dict[int, str], head: str, number: int) -> bool:
    line = lines[number]
    return not line.strip() or len(line) - len(line.lstrip()) > len(head) - len(head.lstrip())


def _marked(function: Function, paired: frozenset[int]) -> Iterator[int]:
    statements, ends, ours = _read(function.name, function.text, function.first)
    if ours:
        return
    lines = function.text.split("\n")
    for first in (line for statement in statements for line in _dropped(statement, paired, None)):
        above = first
        while above - 1 > function.first and lines[above - 1 - function.first].strip().startswith("#"):
            above -= 1
        comments = lines[above - function.first:first - function.first]
        if any(NOT_HERE.match(comment.strip()) for comment in comments):
            continue        # it stands for what the comment names
        if any(MARK.match(comment.strip()) for comment in comments):
            yield from range(above, first)
        yield from range(first, ends.get(first, first) + 1)


def _dropped(statement: Statement, paired: frozenset[int], outer: str | None) -> list[int]:
    """The first lines of what is not the kernel's in a statement: of itself, and of those in it. `outer`: the mark of the block."""
    mark = statement.mark if statement.mark is not None else outer
    inner = [line for each in statement.body for line in _dropped(each, paired, mark if statement.covers or outer is not None else None)]
    rest = [line for each in statement.orelse for line in _dropped(each, paired, outer)]
    if statement.body:
        # The head goes with its block, if nothing of either is the kernel's.
        empty = {each.line for each in statement.body} <= {*inner} and not statement.orelse
        if statement.orelse and _ours(statement, paired, mark):
            return [each.line for each in statement.body if _recording(each)] + rest    # a head without its else says something else
        own = empty and (all(_recording(each) for each in statement.body) or _ours(statement, paired, mark))
        return [statement.line, *inner] if own else inner + rest
    return [statement.line] if _recording(statement) or _ours(statement, paired, mark) else []


def _recording(statement: Statement) -> bool:
    return bool(statement.expr and statement.expr[:2] == ("call", ("name", RECORDING)))


def _ours(statement: Statement, paired: frozenset[int], mark: str | None) -> bool:
    """Whether a statement is marked, and does not stand for one of the kernel's."""
    if mark is None or statement.line in paired or meant(mark) is not None or STANDS.match(mark):
        return False
    # A plain store of the kernel's is careful here.
    expr = statement.expr or ZERO
    return not (expr[0] == "call" and expr[1][0] == "name" and expr[1][1].startswith("WRITE_ONCE"))
