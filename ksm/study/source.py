# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""The source in the page: files side by side, function by function, with helpers, hooks, and what has changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from markupsafe import Markup, escape
from pygments.lexers.c_cpp import CLexer
from pygments.lexers.python import CythonLexer
from pygments.token import Token, _TokenType, is_token_subtype

from ksm.study.align import Part, Row, stacked
from ksm.study.base import base_version
from ksm.study.evolution import KINDS, Change, changes
from ksm.study.functions import Source
from ksm.study.kernel import Kernel
from ksm.study.lens import running
from ksm.study.notes import ELSEWHERE
from ksm.study.pairing import BESIDE, KSM, Pair, Study, study
from ksm.study.same import share

WORDS = {"changed": "differs from {}", "new": "not in {}", "gone": "only in {}", "renamed": "another name in {}"}

# Kinds of tokens, with their classes in the page's style. The first kind that a token is of counts.
CLASSES = (
    (Token.Comment.Preproc, "pp"), (Token.Comment.PreprocFile, "pp"), (Token.Comment, "co"), (Token.Literal.String, "st"),
    (Token.Keyword.Type, "ty"), (Token.Keyword, "kw"), (Token.Name.Function, "fn"), (Token.Literal.Number, "nu"),
    (Token.Name.Label, "la"), (Token.Operator.Word, "kw"),
)
INCLUDE = re.compile(r"#\s*(?:include|define CREATE_TRACE)|(?:from\b.*\b)?c?import\b|from\b")


@cache
def css_class(kind: _TokenType) -> str:
    return next((name for token, name in CLASSES if is_token_subtype(kind, token)), "")


@lru_cache(8)
def tokens_of(text: str, is_c: bool) -> list[tuple[_TokenType, str]]:
    lexer = (CLexer if is_c else CythonLexer)(stripnl=False)
    return list(lexer.get_tokens(text))


def highlighted(source: Source, text: str, is_c: bool, links: dict[str, str]) -> list[str]:
    """The lines of a file as HTML. A call of a function that is on the page is a link to it. `text`: the file, or what is shown of it."""
    tokens = tokens_of(text, is_c)
    starts = {function.first for function in source.functions.values()}
    lines: list[str] = []
    current: list[str] = []
    for number, (kind, value) in enumerate(tokens):
        follows = tokens[number + 1][1] if number + 1 < len(tokens) else ""
        name = css_class(kind)
        for at, part in enumerate(value.split("\n")):
            if at:
                lines.append("".join(current))
                current = []
            if part in links and follows.startswith("(") and name not in ("co", "st") and len(lines) + 1 not in starts:
                current.append(f'<a href="#f-{links[part]}">{part}</a>')
            elif part:
                # Behind empty lines the lexer does not know a head of C.
                name = name or ("fn" if part in source.functions and len(lines) + 1 in starts else "")
                current.append(f'<b class="{name}">{escape(part)}</b>' if name and not part.isspace() else str(escape(part)))
    return [*lines, "".join(current)]


def section_names(subjects: list[Study]) -> dict[str, str]:
    """The section to which a call links, by the function's name on either side."""
    return {name: pair.name for subject in reversed(subjects) for pair in subject.pairs for name in (pair.name, pair.renamed) if name}


def callers(subjects: list[Study], links: dict[str, str]) -> dict[str, list[str]]:
    """By section: the sections that call it, on either side."""
    result: dict[str, list[str]] = {}
    for subject in subjects:
        for pair in subject.pairs:
            for function in (pair.kernel, pair.port):
                for called in function.calls if function else []:
                    if (target := links.get(called)) and pair.name not in result.setdefault(target, []):
                        result[target].append(pair.name)
    return {name: found for name, found in result.items() if found}


def omissions(subject: Study) -> list[tuple[str, str]]:
    """What the kernel's file has and the port's does not have, or has elsewhere; with reasons."""
    if subject.theirs is None:
        return []
    text = "\n".join(subject.theirs.lines)
    functions = [(f"{pair.name}()", pair.reason) for pair in subject.pairs if pair.port is None]
    return functions + [(what, reason) for what, sign, reason in ELSEWHERE if sign in text]


@dataclass
class Sheet:
    """A file on the page. `both`: the kernel's file is there, and rows have two columns."""

    subject: Study
    links: dict[str, str]
    both: bool
    changed: dict[str, Change]

    def __post_init__(self) -> None:
        theirs, port = self.subject.theirs, self.subject.port
        self.left = highlighted(theirs, self.subject.text(theirs), True, self.links) if theirs else []
        self.right = highlighted(port, self.subject.text(port), False, self.links)
        self.eras = running(self.subject.port)
        self.new_lines = {line for change in self.changed.values() for line in change.lines}

    @property
    def key(self) -> str:
        return self.subject.file.key

    def cells(self, rows: list[Row], pair: Pair | None = None) -> Markup:
        """Rows as cells of a grid. A helper of the port begins with a bar that folds it."""
        part_of = {line: part for part in (pair.parts if pair else ()) for line in range(part.first, part.last + 1)}
        missing = pair.row.missing if pair and pair.row else {}
        out: list[str] = []
        for theirs, own in rows:
            part = part_of.get(own or 0)
            if part and own == part.first:
                out += ["<i></i>"] * self.both + [bar(part)]
            if self.both:
                out.append(self.kernels(theirs) if theirs else "<i></i>")
            out.append(self.ports(own, part) if own else empty(missing.get(theirs or 0, "")))
        return Markup("".join(out))

    def kernels(self, number: int) -> str:
        assert self.subject.theirs is not None
        return cell("k" + self.key, number, self.subject.theirs.lines, self.left, {"data-new": ""} if number in self.new_lines else {})

    def ports(self, number: int, part: Part | None) -> str:
        attributes = {**self.eras.get(number, {}), **({"data-hook": ""} if number in self.subject.hooks else {})}
        if part:
            attributes["data-part"] = part.name
        return cell("p" + self.key, number, self.subject.port.lines, self.right, attributes)

    def opening(self) -> tuple[list[Row], list[Row], int]:
        """What stands in front of the first function: the licence and the includes, then the rest; and how many lines the first has."""
        rows = self.subject.pairs[0].before
        sides = [[line for line in side if line] for side in zip(*rows, strict=True)] if rows else [[], []]
        files = (self.subject.theirs, self.subject.port)
        ends = [includes(source, lines) if source else 0 for source, lines in zip(files, sides, strict=True)]
        (left, right), (theirs, own) = sides, ends
        return stacked(left[:theirs], right[:own]), stacked(left[theirs:], right[own:]), sum(ends)

    def state(self, pair: Pair) -> str:
        if self.subject.theirs is None:
            return "ours" if pair.reason else "paired"
        return "paired" if pair.kernel and pair.port else "kernel" if pair.kernel else "ours"


def bar(part: Part) -> str:
    """The bar above a helper's lines, which folds them away."""
    label = f"<b>{part.label}:</b> " if part.label else ""
    return (f'<button type="button" class="bar" id="f-{part.name}" data-fold="{part.name}" aria-expanded="true">{label}in the helper '
            f"{part.name}()<small>{part.last - part.first + 1} lines</small></button>")


def empty(reason: str) -> str:
    return f'<i class="why">not here: {escape(reason)}</i>' if reason else "<i></i>"


def includes(source: Source, lines: list[int]) -> int:
    """How many of the lines reach up to the last include or import, and what belongs to it."""
    last = 0
    for at, line in enumerate(lines, 1):
        if INCLUDE.match(source.lines[line - 1]):
            last = at
    while 0 < last < len(lines) and source.lines[lines[last - 1]].startswith((" ", "\t", "#")):
        last += 1
    return last


def cell(side: str, number: int, lines: list[str], code: list[str], attributes: dict[str, str]) -> str:
    """A line of code. When it has to be broken, its rest is indented a little more than the line."""
    line = lines[number - 1]
    indent = len(line) - len(line.lstrip())
    more = "".join(f' {name}="{escape(value)}"' if value else f" {name}" for name, value in attributes.items())
    more += f' style="--i:{indent}"' if indent else ""
    return f'<code id="{side}{number}" data-n="{number}"{more}>{code[number - 1]}</code>'


def sheets(kernel: Kernel | None, found: list[Change]) -> list[Sheet]:
    subjects = [study(kernel), *(study(kernel, file) for file in BESIDE)]
    links = section_names(subjects)
    return [Sheet(subject, links, subject.theirs is not None, {change.name: change for change in found} if subject.file is KSM else {})
            for subject in subjects]


def context(kernel: Kernel | None, older: Kernel | None) -> dict[str, Any]:
    """What source.html and nav.html are filled with."""
    found = changes(kernel, older)
    files = sheets(kernel, found)
    subject = files[0].subject
    subjects = [sheet.subject for sheet in files]
    versions = {"function": base_version(), "change": older.name.removeprefix("Linux ") if older else base_version()}
    twins = list(subject.twins().values())
    return {
        "files": files, "subject": subject, "kernel": kernel, "older": older, "base": versions["change"], "kinds": KINDS,
        "words": {where: {what: text.format(version) for what, text in WORDS.items()} for where, version in versions.items()},
        "shown": {pair.name for subject in subjects for pair in subject.pairs}, "callers": callers(subjects, files[0].links),
        "omissions": omissions(subject), "changes": found, "same": share(kernel) if kernel else None,
        "twins": (sum(lines for lines, _ in twins), sum(with_twin for _, with_twin in twins)),
        "changed": {change.name: change for change in found}, "counted": list(counted(found)),
    }


def counted(found: list[Change]) -> Iterator[tuple[str, int]]:
    """How many changes there are of each kind, in the order of KINDS."""
    for kind in KINDS:
        if number := sum(kind in change.kinds for change in found):
            yield KINDS[kind], number
