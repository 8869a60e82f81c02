# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Functions of a C file and of a Cython file: where they are, what they call, which labels they have."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

CYTHON_FUNCTION = re.compile(r"^cdef (?:inline )?[\w ]+?\** ?\**(\w+)\(", re.MULTILINE)

# A comment or string that is not closed reaches to the end of the text or the line: so each character of any file is looked at once.
_C_NOISE = re.compile(r'/\*.*?(?:\*/|\Z)|//[^\n]*|"(?:\\.|[^"\\\n])*"?|' + r"'(?:\\.|[^'\\\n])+'?", re.DOTALL)
_C_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
_CYTHON_NOISE = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*|b?"(?:\\.|[^"\\\n])*"')
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.)*", re.MULTILINE | re.DOTALL)
_NO_FUNCTION = re.compile(r"typedef|enum|EXPORT")
_LABEL = re.compile(r"^\s?(?!default\b|public\b)([a-z_]\w*):\s*(?:;|$)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")
_KEYWORDS = frozenset(("if", "else", "for", "while", "do", "switch", "case", "default", "break", "continue", "return", "goto", "sizeof"))
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


def without_words(text: str) -> str:
    """Cython with spaces for its comments and strings, so that every character stays at its place."""
    return blanked(text, _CYTHON_NOISE)


def bare(text: str) -> str:
    """C with one character for each comment and string."""
    return _C_NOISE.sub("x", text)


def without_comments(text: str) -> str:
    """C with spaces for comments: every other character stays at its place."""
    return blanked(text, _C_COMMENT)


class Lines:
    """Which line of a text a character is in, counted from 1."""

    def __init__(self, text: str) -> None:
        self.starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def __call__(self, place: int) -> int:
        return bisect_right(self.starts, place)

    def begins(self, place: int) -> bool:
        """Whether a line begins here."""
        return self.starts[self(place) - 1] == place


def c_bodies(clean: str, line: Lines) -> Iterator[tuple[str, int, int]]:
    """The functions of a C text without comments and strings: name, where the head begins, where the brace is that closes the body.

    A head begins in the first column. Where #if makes braces that do not match, one in the first column closes a function, too.
    """
    clean = blanked(clean, _DIRECTIVE)
    depth = head = start = 0
    name = ""
    for found in re.finditer(r"[{};]", clean):
        at = found.start()
        if found[0] == "{":
            if not depth:
                start = head + len(clean[head:at]) - len(clean[head:at].lstrip())
                name = named_by(clean[start:at]) if line.begins(start) else ""
            depth += 1
        elif found[0] == "}":
            depth = 0 if line.begins(at) else max(0, depth - 1)
            if name and not depth:
                yield name, start, at
                name = ""
        if not depth:
            head = at + 1
    if name:
        yield name, start, len(clean) - 1


def named_by(head: str) -> str:
    """The name of the function that has this head; "" if it is not a function's head."""
    before, _, rest = head.partition("(")
    if not rest.rstrip().endswith(")") or _NO_FUNCTION.match(head) or not re.fullmatch(r"[\w\s*]*", before):
        return ""
    return (before.replace("*", " ").split() or [""])[-1]


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
    lines, line = text.split("\n"), Lines(text)
    for name, start, end in c_bodies(clean, line):
        if name in functions:
            continue
        first, last = line(start), line(end)
        function = Function(name, first, last, "\n".join(lines[first - 1:last]))
        for label in _LABEL.finditer(clean, start, end):
            function.labels[label[1]] = line(label.start(1))
        functions[name] = function
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
    return " ".join(_TOKEN.findall(_C_COMMENT.sub(" ", text)))


def code_hash(text: str) -> str:
    return hashlib.sha256(normalised(text).encode()).hexdigest()[:16]


def shape(text: str) -> str:
    """The code with a number for each name, in the order in which the names appear: equal for two texts that differ by names only."""
    numbers: dict[str, int] = {}
    return " ".join(f"${numbers.setdefault(token, len(numbers))}" if _WORD.fullmatch(token) and token not in _KEYWORDS else token
                    for token in normalised(text).split(" "))


def shape_hash(text: str) -> str:
    return hashlib.sha256(shape(text).encode()).hexdigest()[:16]


def words(line: str) -> list[str]:
    return _WORD.findall(line)
