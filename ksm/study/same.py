# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""How much of the kernel's files is the same in the port, function by function."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import ksm
from ksm.study.base import base_hashes
from ksm.study.c_reader import macros, read_c
from ksm.study.compare import Difference, Side, Walk, told
from ksm.study.cython_reader import read_cython
from ksm.study.expressions import ZERO, Expr, Unreadable, names_in, text_of
from ksm.study.flow import Body, Builder, Node, counted, prepared
from ksm.study.functions import c_source, cython_source
from ksm.study.kernel import FILE, Kernel
from ksm.study.normalise import PortNormaliser, Rule, Small, asked, is_entry, kernel_normaliser, port_expression, port_rules
from ksm.study.notes import OMITTED as OMITTED_IN_KSM
from ksm.study.notes import OMITTED_IN_RBTREE, OMITTED_IN_RBTREE_H
from ksm.study.standins import IN_THE_PORT, OMITTED
from ksm.study.statements import Code, Statement
from ksm.study.told import OF_2011, with_one_name

PORT = Path(ksm.__file__).parent
IN_FRONT = ("g", "m", "globals", "era")  # parameters that say whose KSM it is


@dataclass(frozen=True)
class Pair:
    """Files of the kernel, those of the port that follow them, and the functions that are left out, with reasons."""

    kernel: tuple[str, ...]
    port: tuple[str, ...]
    omitted: dict[str, str]
    stores: bool  # whether WRITE_ONCE() differs from a plain store

    @property
    def name(self) -> str:
        return ", ".join(self.kernel)


PAIRS = (
    Pair((FILE,), ("mm/ksm.pyx", "mm/ksm.pxd"), OMITTED_IN_KSM, True),
    Pair(("lib/rbtree.c",), ("lib/rbtree.pyx",), OMITTED_IN_RBTREE, False),
    Pair(("include/linux/rbtree.h", "include/linux/rbtree_augmented.h"),
         ("include/linux/rbtree.pxd", "include/linux/rbtree_augmented.pxd", "lib/rbtree.pxd"), OMITTED_IN_RBTREE_H, False),
)


@dataclass
class Row:
    """The counts for one function. Of the kernel's `statements`, `same` are the same; `replaced` have something marked in their place;
    `omitted` are named as missing. `marked`, `recording` and `era` are statements of the port."""

    name: str
    statements: int = 0
    same: int = 0
    replaced: int = 0
    omitted: int = 0
    marked: int = 0
    recording: int = 0
    era: int = 0
    left_out: dict[str, str] = field(default_factory=dict)  # names in statements that are missing: why
    differences: list[Difference] = field(default_factory=list)
    lines: set[tuple[int, int]] = field(default_factory=set)  # lines of the kernel and of the port that say the same
    missing: dict[int, str] = field(default_factory=dict)  # lines of the kernel that are named as missing: why

    def counts(self) -> tuple[int, ...]:
        return self.statements, self.same, self.replaced, self.omitted, self.marked, self.recording, self.era


@dataclass
class Table:
    """The rows of a pair of files, in the kernel's order; what only the port has comes last."""

    pair: Pair
    rows: list[Row]
    ours: list[Row]
    used: set[Rule] = field(default_factory=set)  # rules of standins.IN_THE_PORT

    def total(self) -> Row:
        rows = (*self.rows, *self.ours)
        result = Row("all", *(sum(column) for column in zip(*(row.counts() for row in rows), strict=True)))
        result.differences = [each for row in rows for each in row.differences]
        return result


# The two sides

_DEFINE = re.compile(r"^[ \t]*#[ \t]*define\b(?:\\\n|[^\n])*", re.MULTILINE)      # a macro may hold what looks like a function


class Port:
    """Files of the port, read. `theirs`: the functions that the kernel has."""

    def __init__(self, texts: Iterable[str], theirs: set[str]) -> None:
        self.codes: dict[str, Code] = {}
        for text in texts:
            for name, function in cython_source(text).functions.items():
                if defines(function.text) and name not in self.codes:
                    self.codes[name] = read_cython(name, function.text, function.first)
        self.small: Small = {
            name: (code.params, code.body[0].expr) for name, code in self.codes.items()
            if name not in theirs and not code.part_of and len(code.body) == 1 and code.body[0].kind == "return" and code.body[0].expr}
        self.normaliser = PortNormaliser(port_rules(), self.small)
        self.bodies = {name: prepared(code, self.normaliser) for name, code in self.codes.items()}

    def parts(self, name: str) -> dict[str, Body]:
        return {part: body for part, body in self.bodies.items() if body.code.part_of == name}

    def stands_for(self, name: str) -> bool:
        """Whether a function stands for another expression of the kernel: for container_of(), or for one of standins.IN_THE_PORT."""
        return any(pattern.startswith(f"{name}(") for pattern, _, _ in IN_THE_PORT) or (
            name in self.small and is_entry(self.normaliser(self.small[name][1])))


def defines(text: str) -> bool:
    """Whether the text is a definition, whose head ends in a colon, and not a declaration in a .pxd."""
    depth = 0
    for at, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == ":" and not depth:
            return True
        if letter == "\n" and not depth and at:
            return False
    return False


@lru_cache(8)
def kernel_bodies(texts: tuple[str, ...], stores: bool) -> dict[str, Body | Unreadable]:
    """The functions, and the macros that are expressions, in the form of normalise.py; or why one cannot be read."""
    codes: dict[str, Code | Unreadable] = {}
    for text in texts:
        for name, function in c_source(_DEFINE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)).functions.items():
            try:
                codes.setdefault(name, read_c(name, function.text, function.first))
            except (Unreadable, RecursionError) as error:
                codes[name] = Unreadable(str(error))
        codes = {**macros(text), **codes}
    result: dict[str, Body | Unreadable] = {}
    for name, code in codes.items():
        try:
            result[name] = code if isinstance(code, Unreadable) else prepared(code, kernel_normaliser(stores))
        except (Unreadable, RecursionError) as error:
            result[name] = Unreadable(str(error))
    return result


def compare(pair: Pair, kernel: Iterable[str], port: Iterable[str], only: frozenset[str] | None = None) -> Table:
    """Compare the texts of the kernel's files with those of the port's. Unreadable, if one of the port's cannot be read. `only`: rows of
    these functions are enough."""
    theirs = kernel_bodies(tuple(kernel), pair.stores)
    own = Port(port, set(theirs))
    table = Table(pair, [], [], own.normaliser.used)
    for name, body in theirs.items():
        if only is not None and name not in only:
            continue
        if isinstance(body, Unreadable):
            table.rows.append(unreadable(name, body))
        elif name in own.bodies:
            table.rows.append(compare_function(body, own.bodies[name], own.parts(name)))
        elif not body.code.macro:
            table.rows.append(left_out(name, body, pair))
    for name, body in own.bodies.items():
        if name not in theirs and not body.code.part_of:
            table.ours.append(of_ours(name, body, own.stands_for(name)))
    return table


def unreadable(name: str, error: Exception) -> Row:
    return Row(name, differences=[Difference(name, 0, 0, f"cannot be compared: {error}")])


def left_out(name: str, body: Body, pair: Pair) -> Row:
    row = Row(name, sum(1 for _ in counted(body.statements)))
    if name in pair.omitted:
        row.omitted, row.left_out = row.statements, {name: pair.omitted[name]}
    else:
        row.differences.append(Difference(name, body.code.line, 0, "is not in the port, and not named in ksm/study/notes.py"))
    return row


def of_ours(name: str, body: Body, stands: bool) -> Row:
    row = Row(name, recording=body.recording, era=body.era)
    if body.code.ours and not stands:
        row.marked = sum(1 for _ in counted(body.statements))
    if not body.code.ours and not stands and name not in base_hashes():     # another version may not have that name
        row.differences.append(Difference(name, 0, body.code.line, "is not in the kernel, and has no mark (OURS: reason)"))
    return row


def compare_function(theirs: Body, own: Body, parts: dict[str, Body]) -> Row:
    """Compare one function. `parts`: the helpers of the port that are parts of it."""
    try:
        return _compare_function(theirs, own, parts)
    except (Unreadable, RecursionError) as error:
        return unreadable(theirs.code.name, error)


def _compare_function(theirs: Body, own: Body, parts: dict[str, Body]) -> Row:
    name = theirs.code.name
    bodies = [own, *parts.values()]
    not_here = {**OMITTED, **{word: reason for body in bodies for word, reason in body.code.not_here.items()}}
    named = {id(statement) for statement in counted(theirs.statements) if statement.expr and names_in(statement.expr) & not_here.keys()}
    named |= {id(after) for before, after in neighbours(theirs.statements) if id(before) in named and asks_for(after, before)}
    under = {id(inner): statement for statement in counted(theirs.statements) if id(statement) in named and statement.kind == "if"
             for inner in counted(statement.body)}

    def missing(node: Node) -> bool:
        return bool(node.expr and names_in(node.expr) & not_here.keys()) or id(node.source) in under or (
            node.kind == "if" and id(node.source) in named)

    kernel = side(theirs, {}, missing)
    port = side(own, parts, lambda node: node.source is not None and node.source.mark is not None)
    port.instead = lambda node: meant(node.source.mark or "") if node.source else None
    walk = Walk(name, kernel, port)
    walk.run()
    row = Row(name, recording=sum(body.recording for body in bodies), era=sum(body.era for body in bodies), differences=walk.differences,
              lines=walk.lines)
    met = kernel.matched | kernel.folded
    for statement, nodes in by_statement(kernel, theirs.statements):
        row.statements += 1
        if all(id(node) in met and id(node) not in walk.replaced for node in nodes):
            row.same += 1
        elif any(id(node) in walk.replaced for node in nodes):
            row.replaced += 1
        elif id(statement) in named or (id(statement) in under and absent(under[id(statement)], kernel)):
            row.omitted += 1
            reasons = {word: not_here[word] for word in names_in(statement.expr or ZERO) & not_here.keys()}
            row.left_out |= reasons
            row.missing[statement.line] = next(iter(reasons.values()), "it belongs to what is not here")
        else:
            row.differences.append(Difference(name, statement.line, 0, f"{told_of(statement, nodes)}: is missing"))
    for statement, nodes in by_statement(port, [each for body in bodies for each in body.statements]):
        rest = [node for node in nodes if id(node) not in port.matched | port.folded]
        if statement.mark is not None:
            row.marked += bool(rest)
            if not statement.mark:
                row.differences.append(Difference(name, 0, statement.line, f"{told_of(statement, nodes)}: its mark gives no reason"))
            elif nodes and not rest and not any(id(node) in port.passed for node in nodes):
                row.differences.append(Difference(name, 0, statement.line, f"{told_of(statement, nodes)}: is the kernel's, and is marked"))
        elif rest:
            row.differences.append(Difference(name, 0, statement.line, f"{told_of(statement, rest)}: the kernel does not have that"))
    compare_parameters(row, theirs.code, own.code, not_here)
    for part, body in parts.items():
        if not any(nodes for _, nodes in by_statement(port, body.statements)):
            row.differences.append(Difference(name, 0, body.code.line, f"{part}() is a part of it, and is not called"))
    for body in bodies:
        for word in body.code.not_here.keys() - row.left_out.keys():
            row.differences.append(Difference(name, 0, body.code.line, f"Not here: {word}: no statement that is missing has that name"))
    return row


def compare_parameters(row: Row, theirs: Code, own: Code, not_here: dict[str, str]) -> None:
    """Compare the parameters. The port's are the kernel's, in their order, after the machine; a missing one has to be named."""
    mine = [port_name(name) for name in own.params if name not in IN_FRONT]
    row.left_out |= {name: not_here[name] for name in theirs.params if name not in mine and name in not_here}
    kept = [name for name in theirs.params if name not in not_here or name in mine]
    if not theirs.macro and mine != kept:
        text = f"the parameters {', '.join(mine) or 'none'}, where the kernel has {', '.join(kept) or 'none'}"
        row.differences.append(Difference(row.name, theirs.line, own.line, text))


@cache
def port_name(name: str) -> str:
    """What a parameter is called in the kernel."""
    return str(PortNormaliser(port_rules())(("name", name))[1])


def neighbours(statements: list[Statement]) -> Iterator[tuple[Statement, Statement]]:
    yield from pairwise(statements)
    for statement in statements:
        yield from neighbours(statement.body)
        yield from neighbours(statement.orelse)


def asks_for(asking: Statement, before: Statement) -> bool:
    """Whether the two are `if (err)` and, before it, `err = f()`."""
    return asking.kind == "if" and before.expr is not None and before.expr[0] == "set" and asking.expr == before.expr[1]


@cache
def meant(mark: str) -> Expr | None:
    """The expression of the port that a mark begins with, as in `OURS: new[0] != NULL, further down`; None if there is none."""
    for text in (mark, mark.partition(",")[0], mark.partition(":")[0]):
        with contextlib.suppress(Unreadable):
            return asked(PortNormaliser(port_rules())(port_expression(text)))
    return None


def absent(statement: Statement, kernel: Side) -> bool:
    """Whether nothing of the statement's body is in the port."""
    body = {id(each) for each in counted(statement.body)}
    return not any(id(node.source) in body and id(node) in kernel.matched for node in kernel.nodes)


def side(body: Body, parts: dict[str, Body], passable: Callable[[Node], bool]) -> Side:
    builder = Builder(parts)
    entry = builder.graph(body)
    local = body.code.locals.union(*(part.code.locals for part in parts.values()))
    return Side(entry, builder.reached(entry), local, passable)


def by_statement(graph: Side, statements: list[Statement]) -> list[tuple[Statement, list[Node]]]:
    """Each statement that is counted, and its nodes that can be reached."""
    nodes: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if node.source:
            nodes.setdefault(id(node.source), []).append(node)
    return [(statement, nodes.get(id(statement), [])) for statement in counted(statements)]


def told_of(statement: Statement, nodes: list[Node]) -> str:
    return told(nodes[0]) if nodes else text_of(statement.expr) if statement.expr else statement.kind


# For readers

def port_texts(pair: Pair) -> list[str]:
    include = Path(ksm.get_include())
    return [(include / name.removeprefix("include/") if name.startswith("include/") else PORT / name).read_text() for name in pair.port]


@lru_cache(16)
def compared(name: str, text: str) -> Table:
    """The table of one of the kernel's files that PAIRS has alone."""
    pair = next(pair for pair in PAIRS if pair.kernel == (name,))
    return compare(pair, [text], port_texts(pair))


def share(kernel: Kernel) -> Row:
    """The total of mm/ksm.c."""
    return compared(FILE, kernel.texts[FILE]).total()


@lru_cache(16)
def same_with_one_name(text: str, functions: frozenset[str], of_2011: frozenset[str]) -> dict[str, set[tuple[int, int]]]:
    """Of some functions of mm/ksm.c the lines of the kernel and of the port that say the same, if what versions call otherwise has one
    name. The functions have that name, too. Of those `of_2011`, the port's function is the one of that era."""
    own = port_texts(PAIRS[0])
    for name in of_2011:
        own = [re.sub(rf"\b{name}{OF_2011}\b", name, re.sub(rf"\b{name}\b", f"{name}_now", each)) for each in own]
    own = [with_one_name(each) for each in own]
    # Two small functions of the port may have one name then, and call each other. That is an error unless the kernel has them, too.
    with contextlib.suppress(Unreadable, RecursionError):
        return {row.name: row.lines for row in compare(PAIRS[0], [with_one_name(text)], own, functions).rows}
    return {}


@lru_cache(16)
def compared_rows(name: str, text: str, own: str) -> dict[str, Row]:
    """The rows of one of the kernel's files, by function. `own`: the port's text, for a file that is not in PAIRS. Then only the lines are
    known that are the same, and not all of them, for nothing says what stands for what."""
    if any(pair.kernel == (name,) for pair in PAIRS):
        return {row.name: row for row in compared(name, text).rows}
    try:
        return {row.name: Row(row.name, lines=row.lines) for row in compare(Pair((name,), (), {}, True), [text], [own]).rows}
    except (Unreadable, RecursionError):
        return {}


def tables(kernel: Kernel) -> list[Table]:
    """The tables of all files that the reader's kernel has."""
    return [compare(pair, [kernel.texts[name] for name in pair.kernel], port_texts(pair))
            for pair in PAIRS if all(name in kernel.texts for name in pair.kernel)]
