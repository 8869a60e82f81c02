# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Reading a function of the port into statements."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable

from ksm.study.expressions import COMPARISONS, LEVELS, SETS, ZERO, Expr, Reader, Token, Unreadable, is_type_word
from ksm.study.statements import Code, Statement, parameter_name, split

MARK = re.compile(r"#\s*OURS\b:?\s*(.*)")
PART_OF = re.compile(r"#\s*Part of (\w+)\(\)")
NOT_HERE = re.compile(r"#\s*[Nn]ot here: ([^:]*): *(\S.*)")
_KINDS = {tokenize.NAME: "name", tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.OP: "op"}


def python_tokens(text: str, line: int = 1) -> list[tokenize.TokenInfo]:
    """Python's own tokens, with comments and the structure of lines, which the reader of statements needs. `line` is that of the text."""
    try:
        found = tokenize.generate_tokens(io.StringIO(text).readline)
        return [token._replace(start=(token.start[0] + line - 1, token.start[1])) for token in found]
    except (tokenize.TokenError, SyntaxError) as error:
        raise Unreadable(f"line {line}: {error}") from None


def plain(tokens: Iterable[tokenize.TokenInfo]) -> list[Token]:
    return [Token(_KINDS[token.type], token.string, token.start[0]) for token in tokens if token.type in _KINDS]


class CythonReader(Reader):
    def expression(self) -> Expr:
        value = self.disjunction()
        if self.accept("if"):
            condition = self.disjunction()
            self.expect("else")
            return ("if", condition, value, self.expression())
        return value

    def disjunction(self) -> Expr:
        left = self.conjunction()
        while self.accept("or"):
            left = ("two", "||", left, self.conjunction())
        return left

    def conjunction(self) -> Expr:
        left = self.negation()
        while self.accept("and"):
            left = ("two", "&&", left, self.negation())
        return left

    def negation(self) -> Expr:
        return ("one", "!", self.negation()) if self.accept("not") else self.comparison()

    def comparison(self) -> Expr:
        """a < b < c is a < b and b < c."""
        left = self.operators(2)
        result: Expr | None = None
        while True:
            if self.accept("is"):
                op = "!=" if self.accept("not") else "=="
            elif self.kind() == "op" and self.peek() in COMPARISONS:
                op = self.take().text
            else:
                return result or left
            right = self.operators(2)
            compared = ("two", op, left, right)
            result = ("two", "&&", result, compared) if result else compared
            left = right

    def operators(self, level: int) -> Expr:
        while level < len(LEVELS) and LEVELS[level][0] in COMPARISONS:       # in Cython they bind weaker than & and |
            level += 1
        return super().operators(level)

    def argument(self) -> Expr:
        if is_type_word(self.peek()) and self.peek(1) != "(":
            words = [self.name()]
            while self.kind() == "name":
                words.append(self.name())
            return ("name", " ".join(words))
        return self.expression()

    def unary(self) -> Expr:
        if self.kind() == "op":
            if self.peek() in ("-", "~", "&", "*"):
                return ("one", self.take().text, self.unary())
            if self.accept("<"):
                depth = 0
                while depth or self.peek() != ">":
                    depth += {"(": 1, ")": -1}.get(self.take().text, 0)
                self.expect(">")
                return self.unary()
            if self.accept("("):
                result = self.expression()
                self.expect(")")
                return self.postfix(result)
        return self.postfix(self.literal())


class Line:
    """A logical line: its tokens, the comment behind it, and those directly above it."""

    def __init__(self, depth: int, above: list[tokenize.TokenInfo]) -> None:
        self.depth = depth
        self.tokens: list[tokenize.TokenInfo] = []
        self.above = above
        self.behind: list[str] = []

    def comments_above(self) -> list[str]:
        """The comments directly above the line: no empty line and no code stands between."""
        line, result = self.tokens[0].start[0], []
        for comment in reversed(self.above):
            line -= 1
            if comment.start[0] != line:
                break
            result.append(comment.string)
        return result[::-1]


def logical_lines(tokens: Iterable[tokenize.TokenInfo]) -> list[Line]:
    result: list[Line] = []
    depth, above = 0, []
    current: Line | None = None
    for token in tokens:
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.COMMENT:
            if current:
                current.behind.append(token.string)
            else:
                above.append(token)
        elif token.type == tokenize.NEWLINE:
            current = None
        elif token.type in _KINDS:
            if current is None:
                current = Line(depth, above)
                result.append(current)
                above = []
            current.tokens.append(token)
    return result


class CythonFunction:
    """The statements of a function, from its lines."""

    def __init__(self, text: str, line: int) -> None:
        self.first = line
        self.tokens = python_tokens(text, line)
        self.lines = logical_lines(self.tokens)
        self.at = 0
        self.locals: set[str] = set()

    def function(self, name: str) -> Code:
        head = plain(self.lines[0].tokens)
        start = next(at for at, token in enumerate(head) if token.text == name and head[at + 1].text == "(")
        depth, end = 0, start + 1
        while True:
            depth += {"(": 1, ")": -1}.get(head[end].text, 0)
            if not depth:
                break
            end += 1
        params = [parameter_name(part) for part in split(head[start + 2:end])]
        self.locals |= set(params)
        self.at = 1
        # The docstring
        if self.at < len(self.lines) and self.lines[self.at].tokens[0].type == tokenize.STRING:
            self.at += 1
        above = self.lines[self.at].comments_above() if self.at < len(self.lines) else []
        code = Code(name, self.first, params, self.block(1), self.locals, mark_of(above))
        for comment in above:
            if found := PART_OF.match(comment):
                code.part_of = found[1]
        for token in self.tokens:
            if token.type == tokenize.COMMENT and (found := NOT_HERE.match(token.string)):
                code.not_here.update(dict.fromkeys(re.findall(r"\w+", found[1]), found[2]))
        return code

    def block(self, depth: int) -> list[Statement]:
        result: list[Statement] = []
        while self.at < len(self.lines) and self.lines[self.at].depth >= depth:
            result += self.statement()
        return result

    def statement(self) -> list[Statement]:
        line = self.lines[self.at]
        self.at += 1
        reader = CythonReader(plain(line.tokens))
        mark = mark_of([*line.comments_above(), *line.behind])
        found = self.read(reader, line)
        if reader.peek():
            raise Unreadable(f"line {reader.line()}: {reader.peek()!r} was not expected")
        for statement in found:
            statement.mark, statement.covers = mark, mark_of(line.behind) is not None
        return found

    def body(self, reader: CythonReader, line: Line) -> list[Statement]:
        """The body behind a colon: the lines that are indented, or the rest of this line."""
        reader.expect(":")
        return self.simple(reader) if reader.peek() else self.block(line.depth + 1)

    def read(self, reader: CythonReader, line: Line) -> list[Statement]:
        number = reader.line()
        if reader.accept("if") or reader.accept("elif"):
            condition = reader.expression()
            return [Statement("if", number, condition, self.body(reader, line), self.otherwise(line))]
        if reader.accept("while"):
            condition = reader.expression()
            return [Statement("while", number, condition, self.body(reader, line))]
        if reader.accept("for"):
            return [self.loop(reader, line, number)]
        return self.simple(reader)

    def otherwise(self, line: Line) -> list[Statement]:
        if self.at < len(self.lines) and self.lines[self.at].depth == line.depth:
            word = self.lines[self.at].tokens[0].string
            if word == "elif":
                return self.statement()
            if word == "else":
                other = self.lines[self.at]
                self.at += 1
                reader = CythonReader(plain(other.tokens))
                reader.expect("else")
                mark = mark_of([*other.comments_above(), *other.behind])
                body = self.body(reader, other)
                return [Statement("block", other.tokens[0].start[0], body=body, mark=mark, covers=True)] if mark is not None else body
        return []

    def loop(self, reader: CythonReader, line: Line, number: int) -> Statement:
        """for name in range(...), as C's for"""
        name: Expr = ("name", reader.name())
        reader.expect("in")
        reader.expect("range")
        reader.expect("(")
        bounds = reader.arguments()
        if len(bounds) > 2:
            raise Unreadable(f"line {number}: range() with a step")
        first, last = bounds if len(bounds) == 2 else (ZERO, bounds[0])
        init = [Statement("do", number, ("set", name, first))]
        step = [Statement("do", number, ("step", "+", name))]
        return Statement("for", number, ("two", "<", name, last), self.body(reader, line), init=init, step=step)

    def simple(self, reader: CythonReader) -> list[Statement]:
        number = reader.line()
        if reader.accept("pass"):
            return []
        if reader.accept("break") or reader.accept("continue"):
            return [Statement(reader.tokens[reader.at - 1].text, number)]
        if reader.accept("return"):
            return [Statement("return", number, reader.expression() if reader.peek() else None)]
        if reader.accept("cdef"):
            return self.declaration(reader, number)
        target = reader.expression()
        if reader.kind() == "op" and reader.peek() in SETS:
            op = reader.take().text[:-1].replace("//", "/")
            value = reader.expression()
            if not op and reader.peek() == "=":
                targets = [target, value]
                while reader.accept("="):
                    targets.append(reader.expression())
                value = targets.pop()
                for each in reversed(targets[1:]):
                    value = ("set", each, value)
            return [Statement("do", number, ("set", target, ("two", op, target, value) if op else value))]
        return [Statement("do", number, target)]

    def declaration(self, reader: CythonReader, number: int) -> list[Statement]:
        result = []
        parts = split(reader.tokens[reader.at:])
        reader.at = len(reader.tokens)
        for part in parts:
            sets = next((at for at, token in enumerate(part) if token.text == "=" and token.kind == "op"), len(part))
            name = parameter_name(part[:sets])
            self.locals.add(name)
            if sets < len(part):
                value = CythonReader(part[sets + 1:])
                result.append(Statement("do", number, ("set", ("name", name), value.expression()), declared=True))
                if value.peek():
                    raise Unreadable(f"line {number}: {value.peek()!r} was not expected")
        return result


def mark_of(comments: list[str]) -> str | None:
    found = [mark[1] for comment in comments if (mark := MARK.match(comment))]
    return found[0] if found else None


def read_cython(name: str, text: str, line: int) -> Code:
    """One function of a file of the port, whose first line is `line`."""
    return CythonFunction(text, line).function(name)
