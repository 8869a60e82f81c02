# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Which lines of two functions stand side by side, and where the lines of a helper belong in the kernel's function.

Lines that the comparing test has found to be the same are twins. So are, in order, lines that have most words in common, the labels and the
comments that name them, and the lines that only say where to go on. All other lines stand side by side as they come.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median

from ksm.study.functions import Function, Source, without_comments

Row = tuple[int | None, int | None]  # a line of the kernel and one of the port

Kinds = tuple[dict[int, str], dict[int, str]]  # of the kernel's lines and the port's
CODE, COMMENT, BLANK, ALONE = "code", "comment", "blank", "alone"

LIKE = 0.4  # how alike two lines have to be: twice the weight of the words in common, by the weight of all words
SAME = 4.0  # what two lines count that the comparing test has found to be the same
JUMP = 0.2  # what two lines count that only say where to go on

LABEL_NAMED = re.compile(r"\b([a-z_]\w*):(?=\s|$|,)|goto (\w+)|\"(\w+)\"")
_BARE = frozenset(("cdef", "struct", "int", "unsigned", "long", "bint", "static", "inline", "void", "const", "noexcept", "nogil", "goto"))
_PYTHONS = {"True": "true", "False": "false"}
_LABEL_LINE = re.compile(r"^\s?([a-z_]\w*):\s*;?\s*$")
_JUMP = re.compile(r"\s*(?:\} )?(?:(?:goto \w+|break|continue|return(?: -?\w+)?)\s*;?|(?:for \(;;\)|do|while \(1\)) ?\{?|while True:|"
                   r"(?:\} )?else:?(?: \{)?|err = -?\w+;?)\s*$")
_GOES_ON = re.compile(r"(?:[=,&|+?(-]|\band|\bor|\bnot)\s*$")


@dataclass(frozen=True)
class Part:
    """Lines of a helper of the port, which stand beside the block of the kernel's function that they follow. Lines count from 1."""

    name: str
    first: int
    last: int
    label: str = ""  # the kernel's label of the block, if there is one


@dataclass
class Aligned:
    """The rows of two functions. `twins`: rows whose two lines say the same, as (line of the kernel, line of the port)."""

    rows: list[Row] = field(default_factory=list)
    twins: set[tuple[int, int]] = field(default_factory=set)


def stacked(left: Sequence[int] | None, right: Sequence[int] | None) -> list[Row]:
    """Two blocks side by side from the top."""
    return list(zip_longest(left or (), right or ()))


def between(left: Sequence[int], right: Sequence[int], kinds: Kinds) -> list[Row]:
    """Lines that have no twins, side by side in their order: comments beside comments, code beside code."""
    rows: list[Row] = []
    i = j = 0
    while i < len(left) or j < len(right):
        one, other = (kinds[0][left[i]] if i < len(left) else ""), (kinds[1][right[j]] if j < len(right) else "")
        if one == other or (one and other and BLANK in (one, other)):
            rows.append((left[i], right[j]))
            i, j = i + 1, j + 1
        elif one and (not other or one == COMMENT):
            rows.append((left[i], None))
            i += 1
        else:
            rows.append((None, right[j]))
            j += 1
    return rows


def kinds_of(theirs: Source, left: Sequence[int], port: Source, right: Sequence[int], alone: frozenset[int]) -> Kinds:
    """What each line is: code, a comment, or blank."""
    bare = without_comments("\n".join(theirs.lines[line - 1] for line in left)).split("\n")
    ours = {}
    for line in right:
        text = port.lines[line - 1].strip()
        ours[line] = ALONE if line in alone else COMMENT if text.startswith(("#", '"""')) else CODE if text else BLANK
    return {line: CODE if code.strip() else COMMENT if theirs.lines[line - 1].strip() else BLANK
            for line, code in zip(left, bare, strict=True)}, ours


def tokens_of(lines: list[str], comment: str) -> list[Counter[str]]:
    """What tells each line from others: its words and numbers outside of comments, and the labels that it is or names."""
    result = []
    inside = False
    for line in lines:
        code, _, remark = line.partition(comment)
        if comment == "/*":
            # A comment of C may have several lines, and does not count.
            if inside:
                inside = "*/" not in line
                code = line.partition("*/")[2] if not inside else ""
            elif remark:
                inside = "*/" not in remark
        found = Counter(_PYTHONS.get(word, word) for word in re.findall(r"[A-Za-z_]\w+|\d+", code) if word not in _BARE)
        label = _LABEL_LINE.match(code) if comment == "/*" else None
        if label:
            found = Counter({f"{label[1]}:": 3})
        elif comment == "#" and remark:
            for name in LABEL_NAMED.findall(remark):
                found[f"{name[0] or name[1] or name[2]}:"] += 3
        result.append(found)
    return result


def aligned(theirs: Source, left: Sequence[int], port: Source, right: Sequence[int], same: Iterable[tuple[int, int]] = (),
            alone: frozenset[int] = frozenset()) -> Aligned:
    """The lines of two functions: the twins, in order, that have most in common, and between them the other lines.

    `same`: lines of the kernel and of the port that say the same; `alone`: lines of the port that have no twin.
    """
    if not left or not right:
        return Aligned([(line, None) for line in left] or [(None, line) for line in right])
    kinds = kinds_of(theirs, left, port, right, alone)
    score = scores(theirs, left, port, right, frozenset(same), alone)
    n, m = len(left), len(right)
    best = [[0.0] * (m + 1) for _ in range(n + 1)]
    for i in range(n - 1, -1, -1):
        here, below = best[i], best[i + 1]
        for j in range(m - 1, -1, -1):
            value = max(below[j], here[j + 1])
            if (i, j) in score:
                value = max(value, below[j + 1] + score[i, j])
            here[j] = value
    result = Aligned()
    i = j = top = start = 0
    while i < n and j < m:
        if (i, j) in score and best[i][j] == best[i + 1][j + 1] + score[i, j]:
            result.rows += between(left[top:i], right[start:j], kinds)
            result.rows.append((left[i], right[j]))
            result.twins.add((left[i], right[j]))
            i, j = i + 1, j + 1
            top, start = i, j
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    result.rows += between(left[top:], right[start:], kinds)
    return result


def scores(theirs: Source, left: Sequence[int], port: Source, right: Sequence[int], same: frozenset[tuple[int, int]],
           alone: frozenset[int]) -> dict[tuple[int, int], float]:
    """What two lines count as twins, by their places in `left` and `right`; without those that are none."""
    a = tokens_of([theirs.lines[line - 1] for line in left], "/*")
    b = tokens_of([port.lines[line - 1] for line in right], "#")
    frequency = Counter(word for line in (*a, *b) for word in line)
    weight = {word: 1 / math.sqrt(count) for word, count in frequency.items()}
    sums_a = [sum(weight[word] * count for word, count in line.items()) for line in a]
    sums_b = [sum(weight[word] * count for word, count in line.items()) for line in b]
    jumps_a = [bool(_JUMP.match(theirs.lines[line - 1])) for line in left]
    jumps_b = [bool(_JUMP.match(port.lines[line - 1].partition("#")[0])) for line in right]
    result: dict[tuple[int, int], float] = {}
    for j, own in enumerate(right):
        if own in alone:
            continue
        for i, line in enumerate(left):
            value = SAME if (line, own) in same else JUMP if jumps_a[i] and jumps_b[j] else 0.0
            if common := a[i].keys() & b[j].keys():
                shared = sum(weight[word] * min(a[i][word], b[j][word]) for word in common)
                likeness = 2 * shared / (sums_a[i] + sums_b[j])
                value += shared * likeness if likeness >= LIKE or value else 0.0
            if value:
                result[i, j] = value
    return result


# Helpers that are a part of one of the kernel's functions

def placed(function: Function, own: Function, helpers: list[Function], port: Source, same: Iterable[tuple[int, int]],
           theirs: Source) -> tuple[list[int], list[Part]]:
    """The lines of the port's function with those of its helpers: each behind a call of it, or at the end, where it is beside most of the
    kernel's lines that it follows; and the helpers."""
    twin_of: dict[int, list[int]] = {}
    for line, mine in same:
        twin_of.setdefault(mine, []).append(line)
    lines = list(range(own.first, own.last + 1))
    parts: list[tuple[float, Part]] = []
    for helper in helpers:
        theirs_of_it = [line for mine in range(helper.first, helper.last + 1) for line in twin_of.get(mine, ())]
        label = labelled(function, helper, port, theirs_of_it)
        middle = median(theirs_of_it) if theirs_of_it else function.labels.get(label, function.last)
        parts.append((middle, Part(helper.name, helper.first, helper.last, label)))
    for middle, part in sorted(parts, key=lambda each: each[0]):
        ends = [at + 1 for at, line in enumerate(lines) if re.search(rf"\b{part.name}\(", port.lines[line - 1].partition("#")[0])]
        block = list(range(part.first, part.last + 1))

        def crossed(at: int, middle: float = middle) -> int:
            """How many lines would stand on the wrong side of the helper's."""
            return sum(min(twin_of[line]) > middle for line in lines[:at] if line in twin_of) + sum(
                max(twin_of[line]) < middle for line in lines[at:] if line in twin_of)

        at = min([*ends, len(lines)], key=lambda place: (crossed(place), -place))
        lines[at:at] = block
    return lines, [part for _, part in sorted(parts, key=lambda each: each[0])]


def labelled(function: Function, helper: Function, port: Source, lines: list[int]) -> str:
    """The kernel's label that the helper stands for: the one that its opening comment names in quotes."""
    for number in range(helper.first, helper.last + 1):
        if found := re.match(r"\s*# Part of \w+\(\): \"(\w+)\"", port.lines[number - 1]):
            return found[1] if found[1] in function.labels else ""
    return ""


# How many of the kernel's lines have a twin

def code_lines(theirs: Source, function: Function) -> dict[int, int]:
    """The lines of a function of C that have a word or a number outside of comments, and for each the line where its statement begins."""
    clean = without_comments("\n".join(theirs.lines[function.first - 1:function.last])).split("\n")
    result: dict[int, int] = {}
    depth, before = 0, ""
    for number, line in enumerate(clean, function.first):
        if not line.strip():
            continue
        goes_on = bool(result) and (depth > 0 or bool(_GOES_ON.search(before)))
        if re.search(r"\w", line):
            result[number] = result[max(result)] if goes_on else number
        depth = max(0, depth + line.count("(") - line.count(")"))
        before = line
    return result


def with_twins(theirs: Source, function: Function, twins: set[tuple[int, int]]) -> tuple[int, int]:
    """How many lines of code the kernel's function has, and how many of them belong to a statement that has a twin on its row."""
    lines = code_lines(theirs, function)
    twinned = {lines[line] for line, _ in twins if line in lines}
    return len(lines), sum(begins in twinned for begins in lines.values())
