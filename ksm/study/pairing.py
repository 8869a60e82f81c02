# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Which function of the port is which of the kernel's, and which of their lines stand side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import ksm
from ksm.study.align import LABEL_NAMED, Aligned, Part, Row, aligned, placed, stacked, with_twins
from ksm.study.base import base_hashes
from ksm.study.functions import Function, Source, c_source, code_hash, cython_source, normalised, shape_hash, words
from ksm.study.kernel import FILE, MEMORY, RBTREE, Kernel, StudyError
from ksm.study.marks import helpers_of, not_the_kernels
from ksm.study.notes import IN_ANOTHER_FILE, LABELS, OMITTED, OMITTED_IN_MEMORY, OMITTED_IN_RBTREE, RENAMED, RENAMED_IN_MEMORY, WRITE_FAULT
from ksm.study.same import Row as Compared
from ksm.study.same import compared_rows, same_with_one_name
from ksm.study.steps import era_of
from ksm.study.told import OF_2011, steps_hash, with_one_name

PORT = Path(ksm.__file__).parent


@dataclass(frozen=True)
class File:
    """A file of the kernel, and the port's. `key` stands in front of the numbers of its lines in a page."""

    name: str
    port: str
    key: str = ""
    title: str = ""
    functions: tuple[str, ...] = ()  # of the kernel; empty: all
    renamed: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # of functions that the port's file does not have

    def __hash__(self) -> int:
        return hash(self.name)


KSM = File(FILE, "mm/ksm.pyx", renamed=RENAMED, reasons=OMITTED | IN_ANOTHER_FILE)
FAULT = File(MEMORY, "mm/memory.pyx", "m", "A write fault", WRITE_FAULT, RENAMED_IN_MEMORY, OMITTED_IN_MEMORY)
TREES = File(RBTREE, "lib/rbtree.pyx", "r", "Red-black trees", reasons=OMITTED_IN_RBTREE)
BESIDE = (FAULT, TREES)


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
    twins: set[tuple[int, int]] = field(default_factory=set)  # rows whose two lines say the same
    row: Compared | None = None  # what the comparing test says
    labels: list[Label] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)  # helpers of the port whose lines are among the rows
    within: str = ""  # the function among whose rows this one's lines are
    reason: str = ""  # why one side is missing
    change: str = ""  # against 6.12: "", "changed", "new"
    renamed: str = ""  # the name in this version of the kernel, if it is another one


@dataclass
class Study:
    """What a page shows of one file. `theirs` is None where the reader has no such file."""

    kernel: Kernel | None
    file: File
    theirs: Source | None
    port: Source
    pairs: list[Pair]
    after: list[Row]
    hooks: frozenset[int]  # lines of the port that are not the kernel's
    gone: list[str]  # functions of 6.12 that this version does not have

    @property
    def paired(self) -> int:
        return sum(pair.kernel is not None and pair.port is not None for pair in self.pairs)

    @property
    def of_kernel(self) -> int:
        return sum(pair.kernel is not None for pair in self.pairs)

    def pair(self, name: str) -> Pair:
        # The kernel's own function first: the port may have it as 2.6.38 has it, and as 6.12 has it.
        for pair in sorted(self.pairs, key=lambda each: each.kernel is None):
            if name and name in (pair.name, pair.renamed):
                return self.pair(pair.within) if pair.within else pair
        raise StudyError(f"there is no function {name}() on either side")

    def text(self, source: Source) -> str:
        """What is shown of a file, on the lines where it is."""
        if not self.file.functions:
            return "\n".join(source.lines)
        shown = {line for pair in self.pairs for row in (*pair.before, *pair.rows) for line in [row[source is self.port]] if line}
        return "\n".join(line if number in shown else "" for number, line in enumerate(source.lines, 1))

    def twins(self) -> dict[str, tuple[int, int]]:
        """Of each function of the kernel that is paired: lines of code, and those of them that have a twin on their row."""
        return {pair.name: with_twins(self.theirs, pair.kernel, pair.twins) for pair in self.pairs
                if self.theirs and pair.kernel and pair.port}


@cache
def read_port(file: File = KSM) -> Source:
    return cython_source((PORT / file.port).read_text())


def study(kernel: Kernel | None, file: File = KSM) -> Study:
    """All of both files, in the kernel's order. A function that only the port has comes after the one that it follows in the port; a
    helper that is a part of one of the kernel's functions is among the lines of that one."""
    port = read_port(file)
    theirs = (kernel.source if file is KSM else c_source(kernel.texts[file.name])) if kernel and file.name in kernel.texts else None
    own = {name: function for name, function in port.functions.items() if not file.functions or name in own_names(file)}
    if kernel is None or theirs is None:
        return Study(kernel, file, None, port, *alone(file, port, own), [])
    if file.functions:
        theirs = Source(theirs.lines, {name: function for name, function in theirs.functions.items() if name in file.functions})
        if not theirs.functions:
            return Study(kernel, file, None, port, *alone(file, port, own), [])
    return Study(kernel, file, theirs, port, *beside(kernel, file, theirs, port, own),
                 [name for name in base_hashes() if name not in theirs.functions] if file is KSM else [])


Found = tuple[list[Pair], list[Row], frozenset[int]]  # the pairs, the lines behind the last of them, Study.hooks


def own_names(file: File) -> set[str]:
    return {*file.functions} - file.renamed.keys() | {*file.renamed.values()}


def beside(kernel: Kernel, file: File, theirs: Source, port: Source, own: dict[str, Function]) -> Found:
    """The pairs of two files."""
    names = names_in_the_port(file, theirs, own)
    compared = compared_rows(file.name, own_text(theirs, theirs.functions) if file.functions else kernel.texts[file.name],
                             own_text(port, own))
    same = {name: row.lines for name, row in compared.items()}
    changed = {name for name, function in theirs.functions.items() if base_hashes().get(name) != code_hash(function.text)}
    if file is KSM and changed:
        others = same_with_one_name(kernel.texts[file.name], frozenset(map(with_one_name, changed)),
                                    frozenset(name for name in changed if names.get(name) == name + OF_2011))
        same |= {name: same.get(name, set()) | others.get(with_one_name(name), set()) for name in changed}
    hooks = not_the_kernels(port, frozenset(line for pairs in same.values() for _, line in pairs))
    helpers = helpers_of(port)
    within = {part: host for host, parts in helpers.items() if host in names.values() for part in parts if part in own}
    heads = {"kernel": fronts(theirs), "port": fronts(port)}
    first = next(iter(theirs.functions.values()))
    opening = fronts_of(first, theirs, heads["kernel"])[0]
    pairs: list[Pair] = []

    def add(name: str, function: Function | None, mine: Function | None) -> None:
        pair = Pair(name, function, mine, within=within.get(name, "") if not function else "")
        pairs.append(pair)
        (far, near), (own_far, own_near) = (fronts_of(function, theirs, heads["kernel"]), fronts_of(mine, port, heads["port"]))
        if file.functions:
            far = own_far = range(0)
        # The two files begin side by side, whichever of them has the first function.
        pair.before = stacked(opening if not pairs[1:] and not file.functions else range(0) if function is first else far, own_far)
        if pair.within:
            pair.before = stacked(None, [*own_far, *own_near])
            return
        pair.rows = stacked(near, own_near)
        if function and mine:
            lines = list(range(mine.first, mine.last + 1))
            if mine.name in helpers:
                lines, pair.parts = placed(function, mine, [own[part] for part in helpers[mine.name] if part in own], port,
                                           same.get(function.name, ()), theirs)
            found = aligned(theirs, range(function.first, function.last + 1), port, lines, same.get(function.name, ()), hooks)
            pair.row = compared.get(function.name) if mine.name != function.name + OF_2011 else None
            pair.labels = labels_of(function, mine, port, theirs)
            pair.renamed = function.name if function.name != name else ""
        else:
            found = Aligned(stacked(lines_of(function), lines_of(mine)))
            pair.reason = reason_of(name, function, file)
        pair.rows += found.rows
        pair.twins = found.twins
        if function and file is KSM:
            known = base_hashes().get(name.removesuffix(OF_2011))
            pair.change = "new" if known is None else "changed" if known != code_hash(function.text) else ""

    followers = following(own, set(names.values()))
    for follower in followers.get("", ()):
        add(follower, None, own[follower])
    for name, function in theirs.functions.items():
        now = names.get(name, "")
        # Two of the kernel's functions may be one of the port's.
        add(name if now in theirs.functions else now or name, function, own[now] if now else None)
        for follower in followers.get(now, ()) if now else ():
            add(follower, None, own[follower])
    return pairs, [] if file.functions else stacked(tail(theirs), tail(port)), hooks


def names_in_the_port(file: File, theirs: Source, own: dict[str, Function]) -> dict[str, str]:
    """The kernel's functions that the port has, with their names there. An old name stands in only where the version does not have the new
    one, or where the function of the new name is said to be left out."""
    result: dict[str, str] = {}
    old = file is KSM and era_of(theirs) == "2.6.38"
    for name in theirs.functions:
        now = name + OF_2011 if old and name + OF_2011 in own else file.renamed.get(name, "")
        if now in own and (now not in theirs.functions or now in file.reasons):
            result[name] = now
    return {name: result.get(name, name) for name in theirs.functions
            if name in result or (name in own and name not in result.values())}


def reason_of(name: str, function: Function | None, file: File) -> str:
    """Why one side is missing."""
    if function:
        return file.reasons.get(name) or ("left out" if file is not KSM or name in base_hashes() else "not in Linux 6.12")
    return "not in this version" if name in (base_hashes() if file is KSM else own_names(file)) else "OURS"


def following(own: dict[str, Function], taken: set[str]) -> dict[str, list[str]]:
    """The functions that only the port has, by the function of the kernel that they follow in the port."""
    result: dict[str, list[str]] = {}
    last = ""
    for name in own:
        if name in taken:
            last = name
        else:
            result.setdefault(last, []).append(name)
    return result


def lines_of(function: Function | None) -> range:
    return range(function.first, function.last + 1) if function else range(0)


def own_text(source: Source, functions: dict[str, Function]) -> str:
    """The text of a file with empty lines in place of what is not in one of these functions."""
    shown = {line for function in functions.values() for line in lines_of(function)}
    return "\n".join(line if number in shown else "" for number, line in enumerate(source.lines, 1))


def alone(file: File, port: Source, own: dict[str, Function]) -> Found:
    heads = fronts(port)
    pairs = []
    for name, function in own.items():
        far, near = fronts_of(function, port, heads)
        pair = Pair(name, None, function, [] if file.functions else stacked(None, far), stacked(None, range(near.start, function.last + 1)))
        pair.reason = "" if file is not KSM or name in base_hashes() else "OURS"
        pairs.append(pair)
    return pairs, [] if file.functions else stacked(None, tail(port)), not_the_kernels(port)


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


def labels_of(function: Function, own: Function, port: Source, theirs: Source) -> list[Label]:
    """Each label of the kernel's function, and the comment that names it: in its twin, or in a helper of ours that stands in for a part."""
    helpers = [port.functions[name] for name in own.calls if name not in theirs.functions and name not in base_hashes()]
    result = []
    for name, line in function.labels.items():
        label = Label(name, line, reason=LABELS.get(f"{own.name}:{name}", ""))
        for place in (own, *helpers):
            for number in range(place.first, place.last + 1):
                remark = port.lines[number - 1].partition("#")[2]
                if not label.port_line and name in {word for found in LABEL_NAMED.findall(remark) for word in found}:
                    label.port_line = number
        if not label.port_line and not label.reason:
            for number in range(own.first, own.last + 1):
                if not label.port_line and name in words(port.lines[number - 1].partition("#")[2]):
                    label.port_line = number
        result.append(label)
    return result


def hashes_of(kernel: Kernel) -> dict[str, object]:
    """What hashes.json keeps of a version."""
    functions = kernel.source.functions
    return {"file": FILE, "version": kernel.version, "functions": {name: code_hash(function.text) for name, function in functions.items()},
            "shapes": {name: shape_hash(function.text) for name, function in functions.items()},
            "steps": {name: steps_hash(function.text) for name, function in functions.items()}}


def differs(old: Function | None, new: Function | None) -> bool:
    return normalised(old.text if old else "") != normalised(new.text if new else "")
