# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Which function of the port is which of the kernel's, and which of their lines stand side by side."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import ksm
from ksm.study.functions import Function, Source, code_hash, cython_source, normalised, words
from ksm.study.kernel import FILE, Kernel, StudyError
from ksm.study.notes import IN_ANOTHER_FILE, LABELS, OMITTED, RENAMED

PORT = Path(ksm.__file__).parent / "mm/ksm.pyx"
BASE = "6.12"
HASHES = Path(__file__).with_name("hashes.json")

Row = tuple[int | None, int | None]  # a line of the kernel and one of the port

_BARE = frozenset(("cdef", "struct", "int", "unsigned", "long", "bint", "static", "inline", "void", "const", "noexcept", "nogil", "goto"))
_LABEL_LINE = re.compile(r"^\s?([a-z_]\w*):\s*;?\s*$")
_LABEL_NAMED = re.compile(r"\b([a-z_]\w*):(?=\s|$|,)|goto (\w+)|\"(\w+)\"")


@dataclass
class Label:
    """A label of the kernel's function, its line, and where the port names it: a line, or a sentence, or neither."""

    name: str
    line: int
    port_line: int = 0
    reason: str = ""


@dataclass
class Pair:
    """A function of the kernel, of the port, or of both, with the lines in front of it."""

    name: str
    kernel: Function | None
    port: Function | None
    before: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    reason: str = ""  # why one side is missing
    change: str = ""  # against 6.12: "", "changed", "new"
    renamed: str = ""  # the name in this version of the kernel, if it is another one


@dataclass
class Study:
    """What a page shows."""

    kernel: Kernel | None
    port: Source
    pairs: list[Pair]
    after: list[Row]
    gone: list[str]  # functions of 6.12 that this version does not have

    @property
    def paired(self) -> int:
        return sum(pair.kernel is not None and pair.port is not None for pair in self.pairs)

    @property
    def of_kernel(self) -> int:
        return sum(pair.kernel is not None for pair in self.pairs)

    def pair(self, name: str) -> Pair:
        for pair in self.pairs:
            if name and name in (pair.name, pair.renamed):
                return pair
        raise StudyError(f"there is no function {name}() on either side")


@cache
def read_port() -> Source:
    return cython_source(PORT.read_text())


@cache
def base_hashes() -> dict[str, str]:
    hashes: dict[str, str] = json.loads(HASHES.read_text())["functions"]
    return hashes


def base_version() -> str:
    version: str = json.loads(HASHES.read_text())["version"]
    return version


def study(kernel: Kernel | None) -> Study:
    """All of both files, in the kernel's order. A function that only the port has comes after the one that it follows in the port."""
    port = read_port()
    if kernel is None:
        return Study(None, port, *alone(port), [])
    theirs = kernel.source
    names = {name: now for name in theirs.functions if (now := name if name in port.functions else RENAMED.get(name, "")) in port.functions}
    # An old name stands in only where the version does not have the new one.
    names = {name: now for name, now in names.items() if name == now or now not in theirs.functions}
    taken = set(names.values())
    followers: dict[str, list[str]] = {}
    last = ""
    for name in port.functions:
        if name in taken:
            last = name
        else:
            followers.setdefault(last, []).append(name)
    heads = {"kernel": fronts(theirs), "port": fronts(port)}
    first = next(iter(theirs.functions.values()))
    opening = fronts_of(first, theirs, heads["kernel"])[0]
    pairs: list[Pair] = []

    def add(name: str, function: Function | None, own: Function | None) -> None:
        pair = Pair(name, function, own)
        (far, near), (own_far, own_near) = (fronts_of(function, theirs, heads["kernel"]), fronts_of(own, port, heads["port"]))
        # The two files begin side by side, whichever of them has the first function.
        pair.before = stacked(opening if not pairs else range(0) if function is first else far, own_far)
        pair.rows = stacked(near, own_near) + aligned(theirs, function, port, own)
        if function and own:
            pair.labels = labels_of(function, own, port, theirs)
            pair.renamed = function.name if function.name != own.name else ""
        elif function:
            pair.reason = (OMITTED | IN_ANOTHER_FILE).get(name) or ("not in Linux 6.12" if name not in base_hashes() else "left out")
        else:
            pair.reason = "OURS" if name not in base_hashes() else "not in this version"
        if function:
            known = base_hashes().get(name)
            pair.change = "new" if known is None else "changed" if known != code_hash(function.text) else ""
        pairs.append(pair)

    def add_followers(name: str) -> None:
        for follower in followers.get(name, ()):
            add(follower, None, port.functions[follower])

    add_followers("")
    for name, function in theirs.functions.items():
        now = names.get(name, "")
        add(now or name, function, port.functions[now] if now else None)
        if now:
            add_followers(now)
    gone = [name for name in base_hashes() if name not in theirs.functions]
    after = stacked(tail(theirs), tail(port))
    return Study(kernel, port, pairs, after, gone)


def alone(port: Source) -> tuple[list[Pair], list[Row]]:
    heads = fronts(port)
    pairs = []
    for name, function in port.functions.items():
        far, near = fronts_of(function, port, heads)
        pair = Pair(name, None, function, stacked(None, far), [(None, line) for line in range(near.start, function.last + 1)])
        pair.reason = "" if name in base_hashes() else "OURS"
        pairs.append(pair)
    return pairs, stacked(None, tail(port))


def fronts(source: Source) -> dict[str, range]:
    """For each function, the lines between the function before and it, without empty lines at either end."""
    result, line = {}, 1
    for function in sorted(source.functions.values(), key=lambda each: each.first):
        result[function.name] = stripped(source, range(line, function.first))
        line = function.last + 1
    return result


def fronts_of(function: Function | None, source: Source, heads: dict[str, range]) -> tuple[range, range]:
    """The lines in front of a function, in two parts: the comment directly above it is the second one."""
    if function is None:
        return range(0), range(0)
    head, first = heads[function.name], function.first
    while first - 1 >= head.start and source.lines[first - 2].startswith("# "):
        first -= 1
    if first - 1 >= head.start and source.lines[first - 2].rstrip().endswith("*/"):
        opening = first - 1
        while opening > head.start and not source.lines[opening - 1].lstrip().startswith("/*"):
            opening -= 1
        first = opening if source.lines[opening - 1].startswith("/*") else first
    return stripped(source, range(head.start, first)), range(first, function.first)


def tail(source: Source) -> range:
    return stripped(source, range(max(function.last for function in source.functions.values()) + 1, len(source.lines) + 1))


def stripped(source: Source, lines: range) -> range:
    first, last = lines.start, lines.stop
    while first < last and not source.lines[first - 1].strip():
        first += 1
    while last > first and not source.lines[last - 2].strip():
        last -= 1
    return range(first, last)


def stacked(left: range | None, right: range | None) -> list[Row]:
    """Two blocks side by side from the top."""
    left, right = left or range(0), right or range(0)
    return [(left[i] if i < len(left) else None, right[i] if i < len(right) else None) for i in range(max(len(left), len(right)))]


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
        found = Counter(word for word in re.findall(r"[A-Za-z_]\w+|\d+", code) if word not in _BARE)
        label = _LABEL_LINE.match(code) if comment == "/*" else None
        if label:
            found = Counter({f"{label[1]}:": 3})
        elif comment == "#" and remark:
            for name in _LABEL_NAMED.findall(remark):
                found[f"{name[0] or name[1] or name[2]}:"] += 3
        result.append(found)
    return result


def aligned(theirs: Source, function: Function | None, port: Source, own: Function | None) -> list[Row]:
    """The lines of two functions. Lines that say the same stand side by side: the pairs, in order, that have most words in common."""
    left = list(range(function.first, function.last + 1)) if function else []
    right = list(range(own.first, own.last + 1)) if own else []
    if not left or not right:
        return [(line, None) for line in left] or [(None, line) for line in right]
    a = tokens_of([theirs.lines[line - 1] for line in left], "/*")
    b = tokens_of([port.lines[line - 1] for line in right], "#")
    frequency = Counter(word for line in (*a, *b) for word in line)
    weight = {word: 1 / math.sqrt(count) for word, count in frequency.items()}
    sums_a = [sum(weight[word] * count for word, count in line.items()) for line in a]
    sums_b = [sum(weight[word] * count for word, count in line.items()) for line in b]
    n, m = len(a), len(b)
    best = [[0.0] * (m + 1) for _ in range(n + 1)]
    score: dict[tuple[int, int], float] = {}
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            value = max(best[i + 1][j], best[i][j + 1])
            if a[i] and b[j] and (common := a[i].keys() & b[j].keys()):
                shared = sum(weight[word] * min(a[i][word], b[j][word]) for word in common)
                likeness = 2 * shared / (sums_a[i] + sums_b[j])
                if likeness >= 0.4:
                    score[i, j] = shared * likeness
                    value = max(value, best[i + 1][j + 1] + score[i, j])
            best[i][j] = value
    rows: list[Row] = []
    i = j = top = start = 0
    while i < n and j < m:
        if (i, j) in score and best[i][j] == best[i + 1][j + 1] + score[i, j]:
            rows += stacked(range(left[0] + top, left[0] + i), range(right[0] + start, right[0] + j))
            rows.append((left[i], right[j]))
            i, j = i + 1, j + 1
            top, start = i, j
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return rows + stacked(range(left[0] + top, left[-1] + 1), range(right[0] + start, right[-1] + 1))


def labels_of(function: Function, own: Function, port: Source, theirs: Source) -> list[Label]:
    """Each label of the kernel's function, and the comment that names it: in its twin, or in a helper of ours that stands in for a part."""
    helpers = [port.functions[name] for name in own.calls if name not in theirs.functions and name not in base_hashes()]
    result = []
    for name, line in function.labels.items():
        label = Label(name, line, reason=LABELS.get(f"{own.name}:{name}", ""))
        for place in (own, *helpers):
            for number in range(place.first, place.last + 1):
                remark = port.lines[number - 1].partition("#")[2]
                if not label.port_line and name in {word for found in _LABEL_NAMED.findall(remark) for word in found}:
                    label.port_line = number
        if not label.port_line and not label.reason:
            for number in range(own.first, own.last + 1):
                if not label.port_line and name in words(port.lines[number - 1].partition("#")[2]):
                    label.port_line = number
        result.append(label)
    return result


def hashes_of(kernel: Kernel) -> dict[str, object]:
    """What hashes.json keeps of a version."""
    functions = {name: code_hash(function.text) for name, function in kernel.source.functions.items()}
    return {"file": FILE, "version": kernel.version, "functions": functions}


def differs(old: Function | None, new: Function | None) -> bool:
    return normalised(old.text if old else "") != normalised(new.text if new else "")
