# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""A function as a graph of its control flow, in which goto, break, continue, else and helpers leave no trace.

A node does something, asks something ("if", with two ways on), or is the end, with the value that is returned. && and || become nodes of
their own, and so do ?: and a boolean value where they are assigned or returned; a `!` exchanges the two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ksm.study.expressions import ONE, ZERO, Expr, Unreadable, names_in
from ksm.study.normalise import ERAS, Normaliser, asked, filled, is_machine, simplified, truth
from ksm.study.statements import FLOW, Code, Statement

RECORDING = "ksm_step"


@dataclass(eq=False)
class Node:
    """kind: "do", "if", "end", "pass" (nothing). `ways`: what comes next; of "if", the one for yes and the one for no."""

    kind: str
    source: Statement | None = None
    expr: Expr | None = None
    ways: list[Node] = field(default_factory=list)
    unless_used: str = ""  # a "do" that nothing depends on, unless this variable is read later


@dataclass
class Body:
    """A function in the form of normalise.py, and how many statements of it are not compared."""

    code: Code
    statements: list[Statement]
    recording: int = 0
    era: int = 0


def counted(statements: list[Statement]) -> Iterator[Statement]:
    """The statements that count: all that are not of FLOW."""
    for statement in statements:
        if statement.kind not in FLOW:
            yield statement
        yield from counted(statement.body)
        yield from counted(statement.orelse)


def prepared(code: Code, normaliser: Normaliser) -> Body:
    """The function in the form of normalise.py. Steps of a recording and branches of other eras are left out, and only counted."""
    body = Body(code, [])
    body.statements = _prepared(code.body, normaliser, body, None)
    return body


def _prepared(statements: list[Statement], normaliser: Normaliser, body: Body, mark: str | None) -> list[Statement]:
    result: list[Statement] = []
    for statement in statements:
        raw, inner = statement.expr, statement.mark if statement.covers else mark
        statement.mark = statement.mark if statement.mark is not None else mark
        expr = normaliser(raw) if raw else None
        expr = statement.expr = asked(expr) if expr and statement.kind in ("if", "while", "dowhile", "for") else expr
        if raw and raw[0] == "call" and raw[1] == ("name", RECORDING):
            body.recording += 1
            continue
        if raw and not names_in(raw).isdisjoint(ERAS):
            body.era += 1
        if expr and statement.kind == "do" and expr[0] == "set" and is_machine(expr[1]):
            continue
        if expr and statement.kind == "if" and (known := truth(expr)) is not None:
            kept, dropped = (statement.body, statement.orelse) if known else (statement.orelse, statement.body)
            body.era += sum(1 for _ in counted(dropped))
            result += _prepared(kept, normaliser, body, inner if known else mark)
            continue
        for part in (*statement.init, *statement.step):
            part.expr = normaliser(part.expr) if part.expr else None
        statement.body = _prepared(statement.body, normaliser, body, inner)
        statement.orelse = _prepared(statement.orelse, normaliser, body, mark)
        if statement.kind == "each":
            statement.expr, statement.early = macro_loop(statement.expr)
        result.append(statement)
    return with_loops(result)


# Loops over lists and trees

def macro_loop(call: Expr | None) -> tuple[Expr, bool]:
    """What a macro that loops goes through: ("each", element, the first link, field), and whether the body may free the element."""
    if not call or call[0] != "call" or call[1][0] != "name":
        raise Unreadable("a loop over nothing")
    name, arguments = call[1][1], list(call[2:])
    safe = name.endswith("_safe")
    if safe:
        del arguments[1:2]
    if name.removesuffix("_safe") in ("hlist_for_each_entry", "list_for_each_entry"):
        if len(arguments) != 3:
            raise Unreadable(f"{name}() has {len(call) - 2} arguments")
        element, anchor, member = arguments
        return ("each", element, simplified(("get", anchor, "first" if name[0] == "h" else "next")), member), safe
    if name == "anon_vma_interval_tree_foreach" and arguments:
        return ("each", arguments[0], ("call", ("name", "anon_vma_interval_tree_iter_first"), *arguments[1:])), safe
    return call, safe


def with_loops(statements: list[Statement]) -> list[Statement]:
    """The statements, with `p = first` and `while p` with `p = p.next` inside as the macro that the kernel has for such a loop."""
    result: list[Statement] = []
    for statement in statements:
        found = loop_of(result[-1], statement) if result and statement.kind == "while" else None
        if found:
            result[-1] = found
        else:
            result.append(statement)
    return result


def assignment(statement: Statement) -> tuple[Expr, Expr] | None:
    expr = statement.expr
    return (expr[1], expr[2]) if statement.kind == "do" and expr and expr[0] == "set" else None


def loop_of(before: Statement, loop: Statement) -> Statement | None:
    start, condition = assignment(before), loop.expr
    if not start or start[0][0] != "name" or not condition:
        return None
    cursor, first = start
    if condition == cursor:
        ends = first[0] == "call" or (first[0] == "get" and first[2] == "first")
    else:       # until it is the list's head again
        ends = first[0] == "get" and condition == ("one", "!", ("two", "==", cursor, ("one", "&", first[1])))
    if not ends:
        return None
    following = [("get", cursor, "next")]
    if first[0] == "call":
        following = [("call", ("name", first[1][1].replace("_first", "_next")), cursor, *first[3:])]
    element: Expr | None = None
    member: tuple[Expr, ...] = ()
    early, advanced = True, False
    body: list[Statement] = []
    for statement in loop.body:
        sets = assignment(statement)
        if sets and sets[1] == following[0] and sets[0] != cursor:
            following.append(sets[0])           # saved before the body may change it
        elif sets and sets[0] == cursor and sets[1] in following and not advanced:
            advanced = True
            early = early and (not body or len(following) > 1)
        elif sets and sets[1][:3] == ("call", ("name", "entry"), cursor) and not element:
            element, member = sets[0], (sets[1][3],)
        else:
            if advanced and any(mentions(each, cursor) for each in statement.walk()):
                return None
            if not advanced and skips(statement):
                return None
            if len(following) == 1 and not advanced:
                early = False
            body.append(statement)
    if not advanced or any(assigns(each, cursor) for statement in body for each in statement.walk()):
        return None
    if first[0] == "call":
        element = cursor
    if not element:
        return None
    return Statement("each", loop.line, ("each", element, first, *member), body, mark=loop.mark, early=early)


def mentions(statement: Statement, name: Expr) -> bool:
    return bool(statement.expr) and name[1] in names_in(statement.expr or ())


def assigns(statement: Statement, name: Expr) -> bool:
    sets = assignment(statement)
    return bool(sets and sets[0] == name)


def skips(statement: Statement) -> bool:
    """Whether the statement holds a `continue` of the loop that it stands in."""
    if statement.kind in ("while", "for", "each", "dowhile"):
        return False
    return statement.kind == "continue" or any(skips(each) for each in (*statement.body, *statement.orelse))


# The graph

Return = Callable[[Expr | None, Statement | None], Node]


class Builder:
    """Makes the graph of one function; `parts`: helpers of the port that are parts of it."""

    def __init__(self, parts: dict[str, Body] | None = None) -> None:
        self.parts = parts or {}
        self.labels: dict[str, Node] = {}
        self.returns: Return = self.end
        self.inside = False                     # this is a part, inside of the function that calls it
        self.known: set[Expr] = set()           # what the function itself does: a part need not do it again
        self.nodes: list[Node] = []

    def graph(self, body: Body) -> Node:
        self.known = {statement.expr for statement in counted(body.statements) if statement.kind == "do" and statement.expr}
        entry = self.block(body.statements, self.end(None, None), None, None)
        if missing := [name for name, node in self.labels.items() if not node.ways]:
            raise Unreadable(f"goto {missing[0]}: there is no such label")
        for node in self.nodes:
            if node.unless_used and not read_after(node, node.unless_used):
                node.kind, node.expr, node.source = "pass", None, None
        return entry

    @staticmethod
    def reached(entry: Node) -> list[Node]:
        """The nodes that can be reached, in the order of the file."""
        found, waiting = {id(entry): entry}, [entry]
        while waiting:
            for node in waiting.pop().ways:
                if id(node) not in found:
                    found[id(node)] = node
                    waiting.append(node)
        return sorted((node for node in found.values() if node.kind != "pass"), key=lambda node: node.source.line if node.source else 0)

    def node(self, kind: str, source: Statement | None, expr: Expr | None, *ways: Node) -> Node:
        result = Node(kind, source.origin or source if source else None, expr, list(ways))
        self.nodes.append(result)
        return result

    def end(self, value: Expr | None, source: Statement | None) -> Node:
        return self.node("end", source, value)

    def label(self, name: str) -> Node:
        return self.labels.setdefault(name, Node("pass"))

    def block(self, statements: list[Statement], after: Node, out: Node | None, again: Node | None) -> Node:
        """The statements, then `after`; break leads to `out`, continue to `again`."""
        for statement in reversed(statements):
            after = self.one(statement, after, out, again)
        return after

    def one(self, s: Statement, after: Node, out: Node | None, again: Node | None) -> Node:
        expr = s.expr or ONE
        if s.kind == "do":
            return self.do(expr, s, after)
        if s.kind == "if":
            return self.ask(expr, s, self.block(s.body, after, out, again), self.block(s.orelse, after, out, again))
        if s.kind == "block":
            return self.block(s.body, after, out, again)
        if s.kind == "return":
            return self.give(s.expr, s)
        if s.kind == "goto":
            return self.label(s.name)
        if s.kind == "label":
            self.label(s.name).ways = [after]
            return self.label(s.name)
        if s.kind in ("break", "continue"):
            target = out if s.kind == "break" else again
            if target is None:
                raise Unreadable(f"line {s.line}: {s.kind} outside of a loop")
            return target
        if s.kind == "switch":
            return self.switch(s, after, again)
        if s.kind in ("while", "dowhile", "for", "each"):
            return self.loop(s, expr, after)
        raise Unreadable(f"line {s.line}: a statement of kind {s.kind}")

    def loop(self, s: Statement, expr: Expr, after: Node) -> Node:
        asked = Node("pass")
        if s.kind == "for":
            step = self.pieces(s, s.step, asked)
            asked.ways = [self.ask(expr, s, self.block(s.body, step, after, step), after)]
            return self.pieces(s, s.init, asked)
        if s.kind == "each" and expr[:2] == ("call", ("name", "for_each_vma")) and len(expr) == 4:
            iterator, vma = expr[2:]
            body = self.block(s.body, asked, after, asked)
            fetch = ("set", vma, ("call", ("name", "vma_next"), ("one", "&", iterator)))
            asked.ways = [self.node("do", s, fetch, self.ask(vma, s, body, after))]
            return asked
        body = self.block(s.body, asked, after, asked)
        asked.ways = [self.ask(expr, s, body, after)]
        return body if s.kind == "dowhile" else asked

    def pieces(self, loop: Statement, pieces: list[Statement], after: Node) -> Node:
        """The nodes of what stands in the brackets of a for (;;), which counts as the loop."""
        for piece in reversed(pieces):
            after = self.do(piece.expr or ONE, loop, after)
        return after

    def switch(self, s: Statement, after: Node, again: Node | None) -> Node:
        cases: list[tuple[Statement, Node]] = []
        nodes = {id(each): Node("pass") for each in s.body if each.kind == "case"}
        following = after
        for statement in reversed(s.body):
            if statement.kind == "case":
                node = nodes[id(statement)]
                node.ways = [following]
                following = node
                cases.append((statement, node))
            else:
                following = self.one(statement, following, after, again)
        asked = next((node for case, node in cases if case.expr is None), after)
        for case, node in cases:
            if case.expr is not None:
                asked = self.ask(simplified(("two", "==", s.expr, case.expr)), s, node, asked)
        return asked

    def do(self, expr: Expr, s: Statement, after: Node) -> Node:
        if expr[0] == "step":
            expr = ("set", expr[2], ("two", expr[1], expr[2], ONE))
        if expr[0] == "set":
            target, value = expr[1], expr[2]
            if value[0] == "set":
                return self.do(value, s, self.do(("set", target, value[2] if truth(value[2]) is not None else value[1]), s, after))
            if value[0] == "if":
                return self.ask(value[1], s, self.do(("set", target, value[2]), s, after), self.do(("set", target, value[3]), s, after))
            if part := self.part(value):
                return self.inline(part, value, lambda given, source: self.do(("set", target, given or ZERO), source or s, after))
            if s.declared and self.inside and expr in self.known:
                return after
        elif part := self.part(expr):
            return self.inline(part, expr, lambda given, source: after)
        return self.node("do", s, expr, after)

    def give(self, value: Expr | None, s: Statement) -> Node:
        if value:
            if value[0] == "if":
                return self.ask(value[1], s, self.give(value[2], s), self.give(value[3], s))
            if value[:2] == ("one", "!") or (value[0] == "two" and value[1] in ("==", "<", "&&", "||")):
                return self.ask(value, s, self.give(ONE, s), self.give(ZERO, s))
            if part := self.part(value):
                return self.inline(part, value, self.returns)
        return self.returns(value, s)

    def ask(self, expr: Expr, s: Statement, yes: Node, no: Node) -> Node:
        known = truth(expr)
        if known is not None:
            return yes if known else no
        if expr[:2] == ("one", "!"):
            return self.ask(expr[2], s, no, yes)
        if expr[0] == "two" and expr[1] == "&&":
            return self.ask(expr[2], s, self.ask(expr[3], s, yes, no), no)
        if expr[0] == "two" and expr[1] == "||":
            return self.ask(expr[2], s, yes, self.ask(expr[3], s, yes, no))
        if expr[0] == "step":
            ways = []
            for way in (yes, no):
                ways.append(self.do(expr, s, way))
                ways[-1].unless_used = expr[2][1]
            return self.ask(expr[2], s, *ways)
        if expr[0] == "set":
            return self.do(expr, s, self.ask(expr[1], s, yes, no))
        if part := self.part(expr):
            return self.inline(part, expr, lambda given, source: self.ask(given or ZERO, source or s, yes, no))
        return self.node("if", s, expr, yes, no)

    def part(self, expr: Expr) -> Body | None:
        return self.parts.get(expr[1][1]) if expr[0] == "call" and expr[1][0] == "name" else None

    def inline(self, part: Body, call: Expr, returns: Return) -> Node:
        """The part in place of its call."""
        params = [("name", name) for name in part.code.params if name not in ("g", "m")]
        arguments = call[2:]
        if len(params) != len(arguments):
            raise Unreadable(f"{part.code.name}() is called with {len(arguments)} arguments, and has {len(params)}")
        renamed = {param[1]: argument for param, argument in zip(params, arguments, strict=True) if param != argument}
        inner = Builder({name: body for name, body in self.parts.items() if body is not part})
        inner.inside, inner.known, inner.nodes, inner.returns = True, self.known, self.nodes, returns
        return inner.block([copied(statement, renamed) for statement in part.statements], returns(None, None), None, None)


def copied(statement: Statement, renamed: dict[str, Expr]) -> Statement:
    """The statement with arguments in place of parameters."""
    def copies(statements: list[Statement]) -> list[Statement]:
        return [copied(each, renamed) for each in statements]

    expr = resimplified(filled(statement.expr, renamed)) if statement.expr else None
    return replace(statement, expr=expr, body=copies(statement.body), orelse=copies(statement.orelse), init=copies(statement.init),
                   step=copies(statement.step), origin=statement.origin or statement)


def resimplified(expr: Expr) -> Expr:
    return simplified((expr[0], *(resimplified(part) if isinstance(part, tuple) else part for part in expr[1:])))


def read_after(node: Node, name: str) -> bool:
    seen, waiting = {id(node)}, list(node.ways)
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            if each.expr and not each.unless_used and name in names_in(each.expr):
                return True
            waiting += each.ways
    return False
