# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Reading a function of the kernel into statements."""

from __future__ import annotations

import re
from collections.abc import Callable

from ksm.study.expressions import ONE, SETS, Expr, Reader, Token, Unreadable, is_type_word
from ksm.study.statements import Code, Statement, parameter_name, split

_C_TOKEN = re.compile(
    r"(?P<skip>\s+|/\*.*?\*/|//[^\n]*|\#(?:\\\n|[^\n])*)|(?P<name>[A-Za-z_]\w*)|(?P<number>\d\w*)"
    r"|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+')"
    r"|(?P<op><<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%&|^!~<>=?:;,.(){}\[\]])", re.DOTALL)  # fmt: skip


_DIRECTIVE = re.compile(r"#\s*(\w+)")


def c_tokens(text: str, line: int = 1) -> list[Token]:
    """The tokens, without comments and lines of the preprocessor. What stands under #if counts, what stands under #else does not."""
    result, at = [], 0
    otherwise: list[bool] = []
    while at < len(text):
        found = _C_TOKEN.match(text, at)
        if not found:
            raise Unreadable(f"line {line}: {text[at:at + 20]!r}")
        if directive := _DIRECTIVE.match(found[0]):
            if directive[1].startswith("if"):
                otherwise.append(False)
            elif otherwise and directive[1] in ("else", "elif"):
                otherwise[-1] = True
            elif otherwise and directive[1] == "endif":
                otherwise.pop()
        elif found.lastgroup != "skip" and not any(otherwise):
            result.append(Token(str(found.lastgroup), found[0], line))
        line += found[0].count("\n")
        at = found.end()
    return result


class CReader(Reader):
    def expression(self) -> Expr:
        left = self.ternary()
        if self.kind() == "op" and self.peek() in SETS:
            op = self.take().text[:-1]
            value = self.expression()
            return ("set", left, ("two", op, left, value) if op else value)
        return left

    def ternary(self) -> Expr:
        condition = self.operators(0)
        if not self.accept("?"):
            return condition
        if self.accept(":"):
            return ("if", condition, condition, self.ternary())
        yes = self.expression()
        self.expect(":")
        return ("if", condition, yes, self.ternary())

    def argument(self) -> Expr:
        return self.type_name() if is_type_word(self.peek()) and self.peek(1) != "(" else self.expression()

    def type_name(self) -> Expr:
        words = []
        while self.kind() == "name":
            words.append(self.take().text)
        while self.accept("*"):
            pass
        return ("name", " ".join(word for word in words if word not in ("struct", "const")))

    def unary(self) -> Expr:
        if self.kind() == "op":
            if self.peek() in ("!", "-", "~", "&", "*"):
                return ("one", self.take().text, self.unary())
            if self.peek() in ("++", "--"):
                return ("step", self.take().text[0], self.unary())
            if self.peek() == "(" and self.is_cast():
                self.skip_round()
                if self.peek() == "{":
                    return ("call", ("name", "{}"), *self.initialiser())
                return self.unary()
            if self.accept("("):
                result = self.expression()
                self.expect(")")
                return self.postfix(result)
        return self.postfix(self.literal())

    def is_cast(self) -> bool:
        """Whether the brackets that come next hold nothing but a type."""
        if not is_type_word(self.peek(1)):
            return False
        ahead = 1
        while self.kind(ahead) == "name":
            ahead += 1
        while self.peek(ahead) == "*":
            ahead += 1
        return self.peek(ahead) == ")"

    def initialiser(self) -> list[Expr]:
        """{a, b} or {.name = a}"""
        self.expect("{")
        result: list[Expr] = []
        while not self.accept("}"):
            if self.accept("."):
                name = self.name()
                self.expect("=")
                result.append(("set", ("name", name), self.argument()))
            else:
                result.append(self.argument())
            if self.peek() != "}":
                self.expect(",")
        return result


_LOOP_MACRO = re.compile(r"(?:^|_)for_?each")
_IGNORED = frozenset(("fallthrough",))


class CFunction(CReader):
    def __init__(self, text: str, line: int) -> None:
        super().__init__(c_tokens(text, line))
        self.locals: set[str] = set()

    def function(self, name: str) -> Code:
        line = self.line()
        while not (self.peek() == name and self.peek(1) == "("):
            self.take()
        self.take()
        start = self.at
        self.skip_round()
        params = [each for part in split(self.tokens[start + 1:self.at - 1]) if (each := parameter_name(part)) != "void"]
        self.locals |= set(params)
        while self.peek() != "{":
            self.take()
        body = self.statement()[0].body
        if self.peek():
            raise Unreadable(f"line {self.line()}: {self.peek()!r} behind the function")
        return Code(name, line, params, body, self.locals)

    def statement(self) -> list[Statement]:
        line, word = self.line(), self.peek()
        if self.accept("{"):
            body: list[Statement] = []
            while not self.accept("}"):
                body += self.statement()
            return [Statement("block", line, body=body)]
        if self.accept(";"):
            return []
        if self.kind() == "name":
            if self.peek(1) == ":" and word not in ("default", "case"):
                self.at += 2
                return [Statement("label", line, name=word)]
            method: Callable[[int], list[Statement]] | None = getattr(self, f"read_{word}", None)
            if method:
                self.take()
                return method(line)
            if word in _IGNORED:
                self.at += 2
                return []
            if _LOOP_MACRO.search(word) and self.peek(1) == "(":
                call = self.postfix(self.literal())
                return [Statement("each", line, call, body=self.statement())]
            if self.is_declaration():
                return self.declaration()
        expr = self.expression()
        result = [Statement("do", line, expr)]
        while self.accept(","):
            result.append(Statement("do", line, self.expression()))
        self.expect(";")
        return result

    def is_declaration(self) -> bool:
        """Whether a declaration comes next: a known type, or two names in a row, perhaps with stars between them."""
        if is_type_word(self.peek()) or self.peek() == "static":
            return self.peek(1) != "("
        ahead = 1
        while self.peek(ahead) == "*":
            ahead += 1
        return self.kind(ahead) == "name"

    def declaration(self) -> list[Statement]:
        """Read a type and names. A name with a value becomes an assignment."""
        line = self.line()
        while self.kind() == "name" and (self.kind(1) == "name" or self.peek(1) == "*"):
            self.take()
        result = []
        while True:
            while self.accept("*"):
                pass
            name = self.name()
            self.locals.add(name)
            while self.accept("["):
                self.expression()
                self.expect("]")
            if self.accept("="):
                value = ("call", ("name", "{}"), *self.initialiser()) if self.peek() == "{" else self.expression()
                result.append(Statement("do", line, ("set", ("name", name), value), declared=True))
            if not self.accept(","):
                self.expect(";")
                return result
            line = self.line()

    def condition(self) -> Expr:
        self.expect("(")
        result = self.expression()
        self.expect(")")
        return result

    def read_if(self, line: int) -> list[Statement]:
        condition, body = self.condition(), self.statement()
        return [Statement("if", line, condition, body, self.statement() if self.accept("else") else [])]

    def read_while(self, line: int) -> list[Statement]:
        return [Statement("while", line, self.condition(), self.statement())]

    def read_do(self, line: int) -> list[Statement]:
        body = self.statement()
        line = self.line()
        self.expect("while")
        result = [Statement("dowhile", line, self.condition(), body)]
        self.expect(";")
        return result

    def read_for(self, line: int) -> list[Statement]:
        self.expect("(")
        init = self.expressions(";", line)
        condition = ONE if self.peek() == ";" else self.expression()
        self.expect(";")
        step = self.expressions(")", line)
        return [Statement("for", line, condition, self.statement(), init=init, step=step)]

    def expressions(self, end: str, line: int) -> list[Statement]:
        result = []
        while not self.accept(end):
            result.append(Statement("do", line, self.expression()))
            self.accept(",")
        return result

    def read_switch(self, line: int) -> list[Statement]:
        return [Statement("switch", line, self.condition(), self.statement()[0].body)]

    def read_case(self, line: int) -> list[Statement]:
        value = self.expression()
        self.expect(":")
        return [Statement("case", line, value)]

    def read_default(self, line: int) -> list[Statement]:
        self.expect(":")
        return [Statement("case", line)]

    def read_return(self, line: int) -> list[Statement]:
        value = None if self.peek() == ";" else self.expression()
        self.expect(";")
        return [Statement("return", line, value)]

    def read_goto(self, line: int) -> list[Statement]:
        result = [Statement("goto", line, name=self.name())]
        self.expect(";")
        return result

    def read_break(self, line: int) -> list[Statement]:
        self.expect(";")
        return [Statement("break", line)]

    def read_continue(self, line: int) -> list[Statement]:
        self.expect(";")
        return [Statement("continue", line)]


_MACRO = re.compile(r"^#define (\w+)\(([\w, ]*)\)\s*((?:\\\n|[^\n])+)", re.MULTILINE)


def macros(text: str) -> dict[str, Code]:
    """The macros with parameters that are expressions, as functions that return the value or do the assignment."""
    result = {}
    for found in _MACRO.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        try:
            reader = CReader(c_tokens(found[3].replace("\\\n", " \n"), line))
            expr = reader.expression()
        except (Unreadable, RecursionError):
            continue
        if not reader.peek():
            statement = Statement("do" if expr[0] == "set" else "return", line, expr)
            result[found[1]] = Code(found[1], line, re.findall(r"\w+", found[2]), [statement], macro=True)
    return result


def read_c(name: str, text: str, line: int) -> Code:
    """One function of a file of the kernel, whose first line is `line`."""
    return CFunction(text, line).function(name)
