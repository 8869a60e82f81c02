# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from pygments.lexer import Lexer
from pygments.lexers.c_cpp import CLexer
from pygments.lexers.python import CythonLexer
from pygments.token import Token, _TokenType, is_token_subtype

import ksm
from ksm.machine import ERAS
from ksm.study import door
from ksm.study.functions import Source
from ksm.study.glossary import terms
from ksm.study.kernel import Kernel
from ksm.study.notes import ELSEWHERE
from ksm.study.pairing import Pair, Row, Study, base_version, differs, study
from ksm.study.same import share
from ksm.study.steps import STEPS, era_of, gave_up_lines, kernel_line, port_lines

HERE = Path(__file__).parent
NAME = "ksm-study.html"
STYLES = ("page.css", "nav.css", "door.css", "player.css", "stage.css", "booklet.css", "source.css", "narrow.css")
VIEW = "view.js"  # runs before the page is drawn
SCRIPTS = ("page.js", "tree.js", "replay.js", "changes.js", "stage.js", "story.js", "booklet.js", "player.js",
           "door_words.js", "door_draw.js", "door.js")
LIVE = "door_live.js"  # only where a machine answers
WORDS = {"changed": "differs from {}", "new": "not in {}", "gone": "only in {}"}

# Kinds of tokens, with their classes in the page's style. The first kind that a token is of counts.
CLASSES = (
    (Token.Comment.Preproc, "pp"), (Token.Comment.PreprocFile, "pp"), (Token.Comment, "co"), (Token.Literal.String, "st"),
    (Token.Keyword.Type, "ty"), (Token.Keyword, "kw"), (Token.Name.Function, "fn"), (Token.Literal.Number, "nu"),
    (Token.Name.Label, "la"), (Token.Operator.Word, "kw"),
)


@dataclass
class Change:
    """What a version has changed in one function. `diff` is empty unless the reader has both texts."""

    name: str
    what: str
    diff: list[tuple[str, str]]


def css_class(kind: _TokenType) -> str:
    return next((name for token, name in CLASSES if is_token_subtype(kind, token)), "")


def highlighted(source: Source, lexer: Lexer, links: dict[str, str]) -> list[Markup]:
    """The lines of a file as HTML. A call of a function that is on the page is a link to it."""
    text = "\n".join(source.lines)
    tokens = list(lexer.get_tokens(text))
    starts = {function.first for function in source.functions.values()}
    lines: list[Markup] = []
    current: list[Markup] = []
    for number, (kind, value) in enumerate(tokens):
        follows = tokens[number + 1][1] if number + 1 < len(tokens) else ""
        name = css_class(kind)
        for part in re.split(r"(\n)", value):
            if part == "\n":
                lines.append(Markup("").join(current))
                current = []
            elif part in links and follows.startswith("(") and name not in ("co", "st") and len(lines) + 1 not in starts:
                current.append(Markup('<a href="#f-{}">{}</a>').format(links[part], part))
            elif part:
                current.append(Markup('<b class="{}">{}</b>').format(name, part) if name and not part.isspace() else escape(part))
    return [*lines, Markup("").join(current)]


def section_names(subject: Study) -> dict[str, str]:
    """The section to which a call links, by the function's name on either side."""
    return {name: pair.name for pair in subject.pairs for name in (pair.name, pair.renamed) if name}


def omissions(subject: Study) -> list[tuple[str, str]]:
    """What the kernel's file has and the port's does not have, or has elsewhere; with reasons."""
    if subject.kernel is None:
        return []
    text = "\n".join(subject.kernel.source.lines)
    functions = [(f"{pair.name}()", pair.reason) for pair in subject.pairs if pair.port is None]
    return functions + [(what, reason) for what, sign, reason in ELSEWHERE if sign in text]


def changes(subject: Study, older: Kernel | None) -> list[Change]:
    """What this version has changed, function by function: against the reader's other tree, else by the hashes of 6.12's functions."""
    if subject.kernel is None:
        return []
    new = subject.kernel.source.functions
    if older is None:
        found = [Change(pair.kernel.name, pair.change, []) for pair in subject.pairs if pair.change and pair.kernel]
        return found + [Change(name, "gone", []) for name in subject.gone]
    old = older.source.functions
    found = []
    for name in dict.fromkeys([*new, *old]):
        if differs(old.get(name), new.get(name)):
            what = "new" if name not in old else "gone" if name not in new else "changed"
            before, now = (table[name].text.split("\n") if name in table else [] for table in (old, new))
            found.append(Change(name, what, list(diff_lines(before, now))))
    return found


def diff_lines(before: list[str], now: list[str]) -> Iterable[tuple[str, str]]:
    for line in list(difflib.unified_diff(before, now, lineterm="", n=3))[2:]:
        yield {"+": "add", "-": "del", "@": "at"}.get(line[0], ""), line


def callers(subject: Study) -> dict[str, list[str]]:
    """The callers of each function, on either side."""
    names = section_names(subject)
    result: dict[str, list[str]] = {}
    for pair in subject.pairs:
        for function in (pair.kernel, pair.port):
            for called in function.calls if function else []:
                if (target := names.get(called)) and pair.name not in result.setdefault(target, []):
                    result[target].append(pair.name)
    return result


def steps_for(subject: Study) -> list[dict[str, Any]]:
    """The table of steps that the player has, with the lines that it lights."""
    source = subject.kernel.source if subject.kernel else None
    return [
        {"name": step.name, "text": step.text, "kind": step.kind, "function": step.function,
         "kernel": kernel_line(step, source) if source else 0, "port": port_lines(step, subject.port),
         **({"cases": gave_up_lines(source, subject.port)} if step.name == "UNSTABLE_GAVE_UP" else {})}
        for step in STEPS
    ]


def cell(side: str, number: int, lines: list[str], code: list[Markup]) -> str:
    """A line of code. When it has to be broken, its rest is indented a little more than the line."""
    line = lines[number - 1]
    indent = len(line) - len(line.lstrip())
    return f'<code id="{side}{number}" data-n="{number}"' + (f' style="--i:{indent}"' if indent else "") + f">{code[number - 1]}</code>"


def as_script(data: Any) -> Markup:
    """JSON inside <script>: nothing in it can end the element."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))


def render(kernel: Kernel | None, recordings: list[dict[str, Any]], older: Kernel | None = None, live: bool = False) -> str:
    """The page. `older`: the reader's 6.12, to show what `kernel` has changed against it, line by line. `live`: for ksm.study.serve."""
    subject = study(kernel)
    links = section_names(subject)
    lexer = CLexer(stripnl=False)  # type: ignore[no-untyped-call]  # types-Pygments says nothing of its options
    left = highlighted(subject.kernel.source, lexer, links) if subject.kernel else []
    right = highlighted(subject.port, CythonLexer(stripnl=False), links)
    both = kernel is not None

    def cells(rows: list[Row]) -> Markup:
        out = []
        for a, b in rows:
            if both:
                out.append(cell("k", a, subject.kernel.source.lines, left) if subject.kernel and a else "<i></i>")
            out.append(cell("p", b, subject.port.lines, right) if b else "<i></i>")
        return Markup("".join(out))

    def state(pair: Pair) -> str:
        if not both:
            return "ours" if pair.reason else "paired"
        return "paired" if pair.kernel and pair.port else "kernel" if pair.kernel else "ours"

    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    template = environment.get_template("page.html")
    versions = {"function": base_version(), "change": older.name.removeprefix("Linux ") if older else base_version()}
    words = {where: {what: text.format(version) for what, text in WORDS.items()} for where, version in versions.items()}
    style = Markup("\n").join(Markup((HERE / name).read_text()) for name in STYLES)
    scripts = [Markup((HERE / name).read_text()) for name in ((LIVE, *SCRIPTS) if live else SCRIPTS)]
    return template.render(
        version=ksm.__version__, subject=subject, kernel=kernel, older=older, cells=cells, state=state, words=words,
        base=versions["change"], era=era_of(kernel.source) if kernel else "", shown={pair.name for pair in subject.pairs},
        callers=callers(subject), omissions=omissions(subject), changes=changes(subject, older), same=share(kernel) if kernel else None,
        style=style, view=Markup((HERE / VIEW).read_text()), article=Markup(""), scripts=scripts,
        eras=list(ERAS), door="" if live else as_script(door.recorded()), steps=as_script(steps_for(subject)),
        glossary=as_script(terms()),
        recordings=[(number, recording, as_script(recording)) for number, recording in enumerate(recordings)],
    )
