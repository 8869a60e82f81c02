# SPDX-License-Identifier: GPL-2.0-only
"""Notebooks as pages of the site. Their cells are run when the site is made, and it shows what they say; the files have no outputs."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

NOTE = "[This page as a notebook]({name}), to be run with Jupyter.\n"


def page_of(path: Path) -> str:
    """The notebook as Markdown, with the outputs of its cells."""
    names: dict[str, Any] = {"__name__": "__main__"}
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts.append(f"```python\n{source}\n```")
            parts += outputs(source, names)
    head, _, rest = "\n\n".join(parts).partition("\n")
    return f"{head}\n\n{NOTE.format(name=path.name)}{rest}\n"


def outputs(source: str, names: dict[str, Any]) -> list[str]:
    """Run a cell: what it has printed, and its last expression as a notebook shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if isinstance(last, ast.Expr) else None
    found = [f"```text\n{printed.getvalue()}```"] if printed.getvalue() else []
    for method in ("_repr_html_", "_repr_svg_"):
        if hasattr(value, method):
            # Markdown ends a block of HTML at an empty line.
            return [*found, f'<div class="output" markdown="0">{re.sub(chr(10) + "+", chr(10), getattr(value, method)())}</div>']
    return [*found, f"```text\n{value!r}\n```"] if value is not None else found
