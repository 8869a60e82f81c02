# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what is said of KSM.
"""The annotated article as a part of the page, as docs/article.md, and in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from ksm.study.article import INTRODUCTION, NEVER, OUTDATED, PARTS, RIGHT, STAR, STATEMENTS, TITLE, VERDICTS, Statement
from ksm.study.lessons import lesson

STYLE = {RIGHT: "green", OUTDATED: "yellow", NEVER: "red"}
WIDEST = 100  # columns of a line that is easy to read


def joined(text: str) -> str:
    return " ".join(text.split())


def scene_title(statement: Statement) -> str:
    """The lesson and the scene that show it, as a reader finds them."""
    key, era, scene = statement.scene
    shown = lesson(key)
    title = next(each.title for each in shown.scenes if each.key == scene and (not each.eras or era in each.eras))
    return f'{shown.title}, "{title}" ({era})'


def verdict_of(statement: Statement) -> str:
    return statement.verdict + (f" since {statement.since}" if statement.since else "")


def counts() -> list[tuple[str, int]]:
    found = Counter(statement.verdict for statement in STATEMENTS)
    return [(verdict, found[verdict]) for verdict in VERDICTS]


def as_html(functions: Iterable[str], lessons: Iterable[str]) -> Markup:
    """The part of the page. A function or a lesson that the page does not have is no link."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    scenes = {statement.key: scene_title(statement) for statement in STATEMENTS}
    return Markup(environment.get_template("article.html").render(
        title=TITLE, introduction=joined(INTRODUCTION), parts=PARTS, counts=counts(), scenes=scenes, star=STAR, functions=set(functions),
        lessons=set(lessons)))


def as_markdown() -> str:
    """docs/article.md, without its first lines."""
    out = [joined(INTRODUCTION), "", "`ksm study` has it with links to the scenes; `ksm study --article` prints it. " + STAR, "",
           ", ".join(f"{verdict}: {count}" for verdict, count in counts()) + "."]
    for part in PARTS:
        out += ["", f"## {part.title}"]
        for statement in part.statements:
            out += ["", f"### {statement.says}", "", f"**{verdict_of(statement)}** · `{statement.function}()`", ""]
            out += [f"- {eras}: {text}" for eras, text in statement.by_eras()]
            out += ["", f"Scene: {scene_title(statement)}"]
    return "\n".join(out) + "\n"


def print_article(console: Console) -> None:
    """The article in a terminal."""
    width = min(console.width, WIDEST)

    def say(text: Text, left: int = 0) -> None:
        for line in text.wrap(console, width - left):
            line.rstrip()
            console.print(Text(" " * left) + line, soft_wrap=True)

    say(Text(TITLE, style="bold"))
    say(Text(joined(INTRODUCTION) + " " + STAR))
    for part in PARTS:
        console.print()
        say(Text(part.title, style="bold underline"))
        for statement in part.statements:
            console.print()
            say(Text.assemble((f"{verdict_of(statement)}: ", STYLE[statement.verdict]), (statement.says, "bold")))
            for eras, text in statement.by_eras():
                say(Text.assemble((f"{eras}: ", "dim"), text), 2)
            say(Text(f"{statement.function}(); scene: {scene_title(statement)}", style="dim"), 2)
