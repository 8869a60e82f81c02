# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Does the port do what the kernel does, statement by statement?

The two graphs of a function are walked in step from the first statement. Where the two statements have the same form, the walk goes on
with what follows each of them, on both ways of a question. So a statement is the same only at its place: what comes before and after it is
the same, too. It does not matter whether goto, break or a copy of a few lines leads there. A statement that only the port has is passed
over if it is marked (OURS: reason). A statement that only the kernel has is passed over if it is named (Not here: name: reason, or
standins.OMITTED). Everything else is a difference.

The walk puts the value of a local variable in its place where the value is known. A variable that only says where to go on disappears
by that. So does `err = -EFAULT` in front of `goto out`, where `out` returns err.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from ksm.study.expressions import ONE, ZERO, Expr, Unreadable, names_in, text_of
from ksm.study.flow import Node, resimplified
from ksm.study.normalise import number, truth

ERR_PTR = ("name", "ERR_PTR")
SOMETHING = ("name", "not NULL")  # known not to be NULL
NEVER_NULL = ("pfn_folio",)
FAR = 10  # statements to look ahead for where the two are the same again
LARGEST = 3  # the largest number that is followed as a known value
MOST = 20_000  # steps in one function: mm/ksm.c needs 4,200
LONGEST = 2_000  # nodes

Env = dict[Expr, Expr]  # what is known: of a variable its value, of a condition ONE or ZERO

_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]+")


def constant(expr: Expr) -> bool:
    if expr[0] == "one" and expr[1] in "-~":
        return constant(expr[2])
    if expr[0] == "call":
        return expr[1] == ERR_PTR and constant(expr[2])
    return (number(expr) and abs(expr[1]) <= LARGEST) or (expr[0] == "name" and bool(_CONSTANT.fullmatch(expr[1])))


@dataclass
class Side:
    """The graph of the kernel's function or of the port's, and what the walk has met in it."""

    entry: Node
    nodes: list[Node]
    locals: set[str]
    passable: Callable[[Node], bool]  # marked, or named as missing
    instead: Callable[[Node], Expr | None] = lambda node: None  # the kernel's expression that a node's mark names
    matched: set[int] = field(default_factory=set)
    folded: set[int] = field(default_factory=set)  # passed because its outcome is known
    passed: set[int] = field(default_factory=set)  # passed over because it is passable

    def value(self, expr: Expr, env: Env) -> Expr:
        """The expression with known values in it."""
        if not any(key[0] == "name" and key[1] in names_in(expr) for key in env):
            return expr

        def put(e: Expr, plain: bool) -> Expr:
            if e[0] == "name":
                known = env.get(e)
                return known if plain and known is not None and known != SOMETHING else e
            if e[0] == "one" and e[1] == "&":
                return ("one", "&", put(e[2], False))
            if e[0] == "set":
                return ("set", put(e[1], e[1][0] != "name"), put(e[2], True))
            if e[0] == "each":
                return (*e[:2], *(put(part, True) for part in e[2:]))
            if e[0] == "call":
                return (*e[:2], *(put(part, True) for part in e[2:]))
            return (e[0], *(put(part, True) if isinstance(part, tuple) else part for part in e[1:]))

        return resimplified(put(expr, True))

    def outcome(self, expr: Expr, env: Env) -> bool | None:
        """The answer to a question; None if it is not known."""
        if env.get(expr) == SOMETHING:
            return True
        value = self.value(expr, env)
        known = True if value[:2] == ("call", ERR_PTR) else truth(value)
        if known is None:
            known = truth(env.get(value, value))
        return known

    def local(self, expr: Expr) -> bool:
        """Whether the expression consists of local variables and constants."""
        if expr[0] == "name":
            return expr[1] in self.locals or constant(expr)
        return number(expr) or (expr[0] in ("one", "two") and expr[1] not in ("*", "&") and all(
            self.local(part) for part in expr[1:] if isinstance(part, tuple)))

    def after(self, node: Node, env: Env, addresses: bool = True) -> Env:
        """What is known after a "do". `addresses`: it may change the variables whose addresses it has."""
        expr = node.expr or ZERO
        changed = assigned(expr, addresses)
        result = {key: value for key, value in env.items() if not changed & names_in(key)} if changed else env
        if expr[0] == "set" and expr[1][0] == "name" and expr[1][1] in self.locals:
            value = self.value(expr[2], env)
            if constant(value):
                result = {**result, expr[1]: value}
            elif value[0] == "call" and value[1][1] in NEVER_NULL:
                result = {**result, expr[1]: SOMETHING}
        return result

    def answered(self, node: Node, env: Env, yes: bool) -> Env:
        expr = node.expr or ZERO
        if expr[0] == "each":
            return self.after(node, env)
        if expr[0] == "name" and expr[1] in self.locals:
            return {**env, expr: SOMETHING if yes else ZERO} if expr not in env else env
        return {**env, expr: ONE if yes else ZERO} if self.local(expr) else env

    def settled(self, node: Node, env: Env) -> tuple[Node, Env]:
        """The next node that does something, or asks something that is not known; and what is known there."""
        for _ in range(1000):
            expr = node.expr or ZERO
            if node.kind == "pass":
                node = node.ways[0]
                continue
            if node.kind == "do" and expr[0] == "set" and expr[1][0] == "name" and expr[1][1] in self.locals:
                value = self.value(expr[2], env)
                if constant(value) or value == expr[1]:
                    self.folded.add(id(node))
                    env = self.after(node, env) if value != expr[1] else env
                    node = node.ways[0]
                    continue
            if node.kind == "if" and (known := self.outcome(expr, env)) is not None:
                self.folded.add(id(node))
                node = node.ways[0 if known else 1]
                continue
            return node, env
        raise Unreadable("a loop that does nothing")

    def ways(self, node: Node, env: Env) -> list[tuple[Node, Env]]:
        if node.kind == "do":
            return [(node.ways[0], self.after(node, env))]
        return [(way, self.answered(node, env, at == 0)) for at, way in enumerate(node.ways)]

    def around(self, node: Node, env: Env, passable: Callable[[Node], bool], far: int) -> Iterator[tuple[int, Node, Env]]:
        """The node, and those behind nodes that may be passed over, the nearest first: (how many are passed over, node, what is known).

        The other side does not have the nodes that are passed over. So their answers do not become known, and they do not change the
        variables whose addresses they have.
        """
        waiting = deque([(0, *self.settled(node, env))])
        seen = set()
        while waiting:
            distance, node, env = waiting.popleft()
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield distance, node, env
            if distance < far and node.kind != "end" and passable(node):
                env = self.after(node, env, False)
                waiting += [(distance + 1, *self.settled(way, env)) for way in node.ways]


@lru_cache(100_000)
def assigned(expr: Expr, addresses: bool = True) -> frozenset[str]:
    """The variables that an expression may change."""
    found: set[str] = set()
    if expr[0] in ("set", "step", "each"):
        target = expr[2] if expr[0] == "step" else expr[1]
        if target[0] == "name":
            found.add(target[1])
    if addresses and expr[0] == "one" and expr[1] == "&" and expr[2][0] == "name":
        found.add(expr[2][1])
    for part in expr[1:]:
        if isinstance(part, tuple):
            found |= assigned(part, addresses)
    return frozenset(found)


@dataclass(frozen=True)
class Difference:
    """One difference, for a reader: its line in the kernel's file, in the port's, or in both, and a text."""

    function: str
    kernel: int
    port: int
    text: str


@dataclass
class Walk:
    """Two graphs, walked in step."""

    name: str
    kernel: Side
    port: Side
    differences: list[Difference] = field(default_factory=list)
    replaced: set[int] = field(default_factory=set)  # nodes of the kernel in whose place the port has something marked
    lines: set[tuple[int, int]] = field(default_factory=set)  # lines of the kernel and of the port that say the same
    steps: int = 0

    def run(self) -> None:
        if len(self.kernel.nodes) > LONGEST:
            raise Unreadable("it is too long")
        self.walk([(self.kernel.entry, {}, self.port.entry, {})])
        # Nodes that the walk has not met: they stand behind a marked question of ours, or behind a difference.
        for node in self.kernel.nodes:
            for other in self.port.nodes:
                if not self.known(node, other) and self.same(node, {}, other, {}):
                    self.walk([(node, {}, other, {})])

    def known(self, node: Node, other: Node) -> bool:
        return id(node) in self.kernel.matched | self.kernel.folded | self.replaced or id(other) in self.port.matched | self.port.folded

    def walk(self, waiting: list[tuple[Node, Env, Node, Env]]) -> None:
        visited = set()
        while waiting:
            k, k_env, o, o_env = waiting.pop()
            k, k_env = self.kernel.settled(k, k_env)
            o, o_env = self.port.settled(o, o_env)
            state = (id(k), id(o), frozenset(k_env.items()), frozenset(o_env.items()))
            if state in visited:
                continue
            visited.add(state)
            self.steps += 1
            if self.steps > MOST:
                raise Unreadable("it has too many ways to go")
            waiting += self.step(k, k_env, o, o_env)

    def same(self, k: Node, k_env: Env, o: Node, o_env: Env) -> bool:
        if k.kind != o.kind:
            return False
        if k.expr is None or o.expr is None:
            return k.expr is o.expr
        if k.expr[0] == "each" and k.source and o.source and k.source.early and not o.source.early:
            return False
        theirs, ours = self.kernel.value(k.expr, k_env), self.port.value(o.expr, o_env)
        return theirs == ours or theirs == read_plainly(ours)

    def both(self, k: Node, k_env: Env, o: Node, o_env: Env) -> list[tuple[Node, Env, Node, Env]]:
        """The pairs of nodes that follow two nodes."""
        return [(*way, *other) for way, other in zip(self.kernel.ways(k, k_env), self.port.ways(o, o_env), strict=True)]

    def match(self, k: Node, k_env: Env, o: Node, o_env: Env) -> list[tuple[Node, Env, Node, Env]]:
        self.kernel.matched.add(id(k))
        self.port.matched.add(id(o))
        self.note(k, o)
        return self.both(k, k_env, o, o_env)

    def note(self, k: Node, o: Node) -> None:
        if k.source and o.source:
            self.lines.add((line(k), line(o)))

    def step(self, k: Node, k_env: Env, o: Node, o_env: Env) -> list[tuple[Node, Env, Node, Env]]:
        if self.same(k, k_env, o, o_env):
            return self.match(k, k_env, o, o_env)
        ours = list(self.port.around(o, o_env, self.port.passable, FAR))
        equal = [(distance, other, env) for distance, other, env in ours if self.same(k, k_env, other, env)]
        if equal:
            self.port.passed |= nearer(ours, equal[0][0])
            return [way for distance, other, env in equal if distance == equal[0][0] for way in self.match(k, k_env, other, env)]
        marks = [(other, env) for _, other, env in ours if other.source and self.port.passable(other)]
        reasons = " ".join(other.source.mark or "" for other, _ in marks if other.source)
        for other, env in marks:
            if self.stands(k, other) or (k.kind == other.kind == "end" and stood_for(k, reasons)):
                self.replaced.add(id(k))
                self.note(k, other)
                self.port.passed |= nearer(ours, FAR)
                return self.both(k, k_env, other, env)
        missing = list(self.kernel.around(k, k_env, lambda node: self.kernel.passable(node) or stood_for(node, reasons), FAR))
        pairs = [(a, b, (x, x_env, y, y_env)) for a, x, x_env in missing for b, y, y_env in ours if self.same(x, x_env, y, y_env)]
        if not pairs:
            return self.lost(k, k_env, o, o_env)
        nearest = min(a + b for a, b, _ in pairs)
        result = []
        for a, b, pair in pairs:
            if a + b == nearest:
                self.replaced |= {id(node) for distance, node, _ in missing if distance < a and stood_for(node, reasons)}
                self.port.passed |= nearer(ours, b)
                result += self.match(*pair)
        return result

    def stands(self, k: Node, o: Node) -> bool:
        """Whether the mark of `o` says that it is in the place of `k`, or `o` is WRITE_ONCE() in place of a plain store."""
        if not k.expr or not o.expr or k.kind != o.kind:
            return False
        instead = self.port.instead(o)
        value = k.expr[2] if k.expr[0] == "set" else k.expr
        if instead is not None:
            return instead in (k.expr, value)
        return bool(o.expr[:2] == ("call", ("name", "WRITE_ONCE")) and k.expr == ("set", *o.expr[2:]))

    def lost(self, k: Node, k_env: Env, o: Node, o_env: Env) -> list[tuple[Node, Env, Node, Env]]:
        """Note a difference, and go on where the two are the same again."""
        found = Difference(self.name, line(k), line(o), f"{told(o)}, where the kernel has {told(k)}")
        if found not in self.differences:
            self.differences.append(found)
        ahead = list(self.kernel.around(k, k_env, lambda node: True, FAR))
        own = list(self.port.around(o, o_env, lambda node: True, FAR))
        pairs = [(a + b, x, x_env, y, y_env) for a, x, x_env in ahead for b, y, y_env in own if self.same(x, x_env, y, y_env)]
        return [min(pairs, key=lambda pair: pair[0])[1:]] if pairs else []


def nearer(around: list[tuple[int, Node, Env]], distance: int) -> set[int]:
    return {id(node) for far, node, _ in around if far < distance}


def line(node: Node) -> int:
    return node.source.line if node.source else 0


def told(node: Node) -> str:
    expr = text_of(node.expr) if node.expr else ""
    return f"return {expr}".strip() if node.kind == "end" else f"if ({expr})" if node.kind == "if" else expr


def stood_for(node: Node, reasons: str) -> bool:
    """Whether the kernel's statement calls what a mark of ours names, as in "OURS: kthread_run()"."""
    return bool(node.expr) and any(f"{name}(" in reasons for name in called(node.expr or ZERO))


def called(expr: Expr) -> set[str]:
    found = {expr[1][1]} if expr[0] == "call" and expr[1][0] == "name" else set()
    for part in expr[1:]:
        if isinstance(part, tuple):
            found |= called(part)
    return found


def read_plainly(expr: Expr) -> Expr:
    """The expression without READ_ONCE(): the port may read more carefully than the kernel, not less."""
    if expr[0] == "call" and expr[1] == ("name", "READ_ONCE"):
        return read_plainly(expr[2])
    return (expr[0], *(read_plainly(part) if isinstance(part, tuple) else part for part in expr[1:]))
