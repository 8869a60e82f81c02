# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Functions of a C file and of a Cython file: where they are, what they call, which labels they have."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

C_FUNCTION = re.compile(r"^(?!#|\s|typedef|struct \w+ \{|enum|EXPORT)[\w\s*]*?\b(\w+)\s*\((?:[^;{]|\([^)]*\))*?\)\s*\{", re.MULTILINE)
CYTHON_FUNCTION = re.compile(r"^cdef (?:inline )?[\w ]+?\** ?\**(\w+)\(", re.MULTILINE)

_C_NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])+'", re.DOTALL)
_CYTHON_NOISE = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*|b?"(?:\\.|[^"\\\n])*"')
_LABEL = re.compile(r"^\s?(?!default\b|public\b)([a-z_]\w*):\s*(?:;|$)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")
_TOKEN = re.compile(r"[A-Za-z_]\w*|\d\w*|\S")


@dataclass
class Function:
    """One function. Lines count from 1, and the last one belongs to it."""

    name: str
    first: int
    last: int
    text: str
    calls: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


@dataclass
class Source:
    """A file and its functions, in its order. Of two definitions under #ifdef the first one counts."""

    lines: list[str]
    functions: dict[str, Function]

    def text(self, first: int, last: int) -> str:
        return "\n".join(self.lines[first - 1:last])


def blanked(text: str, noise: re.Pattern[str]) -> str:
    """The text with spaces for comments and strings, so that every character stays at its place."""
    return noise.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def closing(text: str, start: int) -> int:
    """Where the brace at `start` is closed; the end of the text, if it is not."""
    depth = 0
    for found in re.finditer(r"[{}]", text[start:]):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return start + found.start()
    return len(text) - 1


def _find_calls(functions: dict[str, Function], clean: list[str]) -> None:
    for function in functions.values():
        body = "\n".join(clean[function.first - 1:function.last])
        called = dict.fromkeys(found[1] for found in re.finditer(r"\b([A-Za-z_]\w*)\s*\(", body))
        function.calls = [name for name in called if name in functions and name != function.name]


def c_source(text: str) -> Source:
    """A file of the kernel."""
    text = text.expandtabs(8)
    clean = blanked(text, _C_NOISE)
    functions: dict[str, Function] = {}
    lines = text.split("\n")
    for found in C_FUNCTION.finditer(clean):
        if found[1] in functions:
            continue
        end = closing(clean, found.end() - 1)
        first, last = clean.count("\n", 0, found.start()) + 1, clean.count("\n", 0, end) + 1
        function = Function(found[1], first, last, "\n".join(lines[first - 1:last]))
        body = clean[found.start():end]
        for label in _LABEL.finditer(body):
            function.labels[label[1]] = first + body.count("\n", 0, label.start(1))
        functions[found[1]] = function
    _find_calls(functions, clean.split("\n"))
    return Source(lines, functions)


def cython_source(text: str) -> Source:
    """A file of the port."""
    clean = blanked(text, _CYTHON_NOISE)
    lines, bare = text.split("\n"), clean.split("\n")
    functions: dict[str, Function] = {}
    for found in CYTHON_FUNCTION.finditer(clean):
        first = clean.count("\n", 0, found.start()) + 1
        # The signature may take several lines; the body is what is indented.
        last = following = first
        while following < len(lines):
            line = lines[following]
            if line and not line[0].isspace():
                break
            following += 1
            if line.strip():
                last = following
        functions[found[1]] = Function(found[1], first, last, "\n".join(lines[first - 1:last]))
    _find_calls(functions, bare)
    return Source(lines, functions)


def normalised(text: str) -> str:
    """C without comments, and with one space between its tokens: two texts of a function are the same code if these are equal."""
    return " ".join(_TOKEN.findall(re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)))


def code_hash(text: str) -> str:
    return hashlib.sha256(normalised(text).encode()).hexdigest()[:16]


def words(line: str) -> list[str]:
    return _WORD.findall(line)
