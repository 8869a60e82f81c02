# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import ksm
from ksm.study import door
from ksm.study.article.words import as_html
from ksm.study.glossary import terms
from ksm.study.kernel import Kernel
from ksm.study.lens import section_eras, steps_for, table
from ksm.study.source import context
from ksm.study.steps import era_of

HERE = Path(__file__).parent
NAME = "ksm-study.html"
STYLES = ("page.css", "nav.css", "door.css", "player.css", "stage.css", "booklet.css", "source.css", "lens.css", "article/article.css",
          "narrow.css")
VIEW = "view.js"  # runs before the page is drawn
SCRIPTS = ("page.js", "source.js", "lens.js", "tree.js", "replay.js", "changes.js", "stage.js", "story.js", "booklet.js", "player.js",
           "door_words.js", "door_draw.js", "door.js")
LIVE = "door_live.js"  # only where a machine answers


def as_script(data: Any) -> Markup:
    """JSON inside <script>: nothing in it can end the element."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))


def render(kernel: Kernel | None, recordings: list[dict[str, Any]], older: Kernel | None = None, live: bool = False) -> str:
    """The page. `older`: the reader's 6.12, to show what `kernel` has changed against it, line by line. `live`: for ksm.study.serve."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    template = environment.get_template("page.html")
    source = context(kernel, older)
    theirs = {file.subject.file.name: file.subject.theirs for file in source["files"][1:] if file.subject.theirs}
    functions = {pair.name for file in source["files"] for pair in file.subject.pairs}
    steps, lens = steps_for(kernel, source["subject"].port, theirs), table(kernel, recordings)
    style = Markup("\n").join(Markup((HERE / name).read_text()) for name in STYLES)
    scripts = [Markup((HERE / name).read_text()) for name in ((LIVE, *SCRIPTS) if live else SCRIPTS)]
    return template.render(
        **source, version=ksm.__version__, era=era_of(kernel.source) if kernel else "", style=style, view=Markup((HERE / VIEW).read_text()),
        article=as_html(functions, {recording.get("lesson", "") for recording in recordings}), scripts=scripts, steps=as_script(steps),
        lens=lens, lens_data=as_script(lens), section_eras=section_eras, glossary=as_script(terms()),
        door="" if live else as_script(door.recorded()),
        recordings=[(number, recording, as_script(recording)) for number, recording in enumerate(recordings)],
    )
