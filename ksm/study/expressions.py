# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Expressions of C and of Cython, read into the same tuples.

    ("name", n)  ("number", value)  ("string", text)  ("call", f, arg, ...)  ("get", x, field)  ("at", x, index)
    ("one", op, x)  ("two", op, a, b)  ("if", condition, a, b)  ("set", target, value)  ("step", op, x)

`op` is C's: Cython's `and` is "&&", its `is` is "==", and its `//` is "/". "get" is `.` and `->`. "step" is x++ or x--. A cast leaves no
trace. A type that stands where an argument could is a name, without struct and stars.

The kernel's text is read as it is, without the preprocessor. pycparser wants the preprocessor's output and every typedef. tree-sitter
passes over what it does not understand; here that is an Unreadable error, so that no statement can get lost.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

Expr = tuple[Any, ...]

ZERO, ONE = ("number", 0), ("number", 1)


class Unreadable(Exception):
    """A text that is neither the C nor the Cython that is understood here."""


class Token(NamedTuple):
    kind: str  # "name", "number", "string", "op"
    text: str
    line: int


LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"), ("+", "-"), ("*", "/", "%"))
COMPARISONS = ("<", ">", "<=", ">=", "==", "!=")
SETS = ("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=")
_TYPE_WORDS = frozenset((
    "struct", "union", "enum", "const", "unsigned", "signed", "int", "long", "short", "char", "void", "bool", "float", "double",
))
_TYPE_NAME = re.compile(r"[us](?:8|16|32|64)|\w+_t")


def is_type_word(name: str) -> bool:
    return name in _TYPE_WORDS or bool(_TYPE_NAME.fullmatch(name))


class Reader:
    """What both languages have in common: a place in a list of tokens, and binary operators by precedence."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].text if self.at + ahead < len(self.tokens) else ""

    def kind(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].kind if self.at + ahead < len(self.tokens) else ""

    def line(self) -> int:
        return self.tokens[min(self.at, len(self.tokens) - 1)].line if self.tokens else 0

    def take(self) -> Token:
        if self.at >= len(self.tokens):
            raise Unreadable("the text ends where more was expected")
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, text: str) -> bool:
        if self.peek() == text and self.kind() != "string":
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise Unreadable(f"line {self.line()}: {self.peek()!r}, where {text!r} was expected")

    def name(self) -> str:
        token = self.take()
        if token.kind != "name":
            raise Unreadable(f"line {token.line}: {token.text!r}, where a name was expected")
        return token.text

    def skip_round(self) -> None:
        """Skip what stands from "(" to its ")"."""
        self.expect("(")
        depth = 1
        while depth:
            depth += {"(": 1, ")": -1}.get(self.take().text, 0)

    def expression(self) -> Expr:
        raise NotImplementedError

    def unary(self) -> Expr:
        raise NotImplementedError

    def operators(self, level: int) -> Expr:
        if level == len(LEVELS):
            return self.unary()
        left = self.operators(level + 1)
        while self.kind() == "op" and (op := self.peek().replace("//", "/")) in LEVELS[level]:
            self.take()
            left = ("two", op, left, self.operators(level + 1))
        return left

    def arguments(self) -> list[Expr]:
        """The arguments behind "(", with the ")"."""
        result: list[Expr] = []
        while not self.accept(")"):
            result.append(self.argument())
            if self.peek() != ")":
                self.expect(",")
        return result

    def argument(self) -> Expr:
        return self.expression()

    def literal(self) -> Expr:
        token = self.take()
        if token.kind == "number":
            return ("number", int(token.text.rstrip("uUlL"), 0))
        if token.kind == "string":
            return ("string", token.text.lstrip("b"))
        if token.kind == "name":
            return ("name", token.text)
        raise Unreadable(f"line {token.line}: {token.text!r}, where an expression was expected")

    def postfix(self, result: Expr) -> Expr:
        while self.kind() == "op":
            if self.accept("("):
                result = ("call", result, *self.arguments())
            elif self.accept("["):
                result = ("at", result, self.expression())
                self.expect("]")
            elif self.accept(".") or self.accept("->"):
                result = ("get", result, self.name())
            elif self.peek() in ("++", "--"):
                result = ("step", self.take().text[0], result)
            else:
                break
        return result


def text_of(expr: Expr) -> str:
    """The expression as text of C, for a reader."""
    kind = expr[0]
    if kind in ("name", "number", "string"):
        return str(expr[1])
    if kind == "call":
        return f"{text_of(expr[1])}({', '.join(map(text_of, expr[2:]))})"
    if kind == "get":
        return f"{text_of(expr[1])}.{expr[2]}"
    if kind == "at":
        return f"{text_of(expr[1])}[{text_of(expr[2])}]"
    if kind == "one":
        return f"{expr[1]}{bracketed(expr[2])}"
    if kind == "two":
        return f"{bracketed(expr[2])} {expr[1]} {bracketed(expr[3])}"
    if kind == "if":
        return f"{bracketed(expr[1])} ? {text_of(expr[2])} : {text_of(expr[3])}"
    if kind == "set":
        return f"{text_of(expr[1])} = {text_of(expr[2])}"
    if kind == "step":
        return f"{text_of(expr[2])}{expr[1] * 2}"
    return f"{kind}({', '.join(map(text_of, expr[1:]))})"


def bracketed(expr: Expr) -> str:
    return f"({text_of(expr)})" if expr[0] in ("two", "if", "set") else text_of(expr)


@lru_cache(100_000)
def names_in(expr: Expr) -> frozenset[str]:
    """Every name and field in an expression."""
    found = {expr[1]} if expr[0] == "name" else {expr[2]} if expr[0] == "get" else set()
    return frozenset(found.union(*(names_in(part) for part in expr[1:] if isinstance(part, tuple))))
