# SPDX-License-Identifier: GPL-2.0-only
"""The reference takes names, order and types from the stubs, and the texts from the compiled modules: stubs have none."""

import importlib
import inspect
import re
from functools import reduce
from typing import Any

import griffe

# "name    what it is", which may go on in the next line, indented
ROW = re.compile(r"(\w+(?:, \w+)*)(?: {2,}(\S.*))?")


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is None and not obj.is_module and obj.name != "__init__" and not str(obj.filepath).endswith(".py"):
            text = text_of(obj)
            obj.docstring = griffe.Docstring(text, parent=obj) if text else None
        if obj.docstring is not None:
            obj.docstring.value = "\n\n".join(map(as_list, obj.docstring.value.split("\n\n")))


def text_of(obj: griffe.Object) -> str | None:
    """What the compiled module says of it."""
    module = importlib.import_module(obj.module.path)
    try:
        real = reduce(getattr, obj.path.removeprefix(f"{module.__name__}.").split("."), module)
    except AttributeError:
        return None  # the files of /sys/kernel/mm/ksm are attributes of a Ksm, and not of its class
    described = inspect.isclass(real) or inspect.isroutine(real) or inspect.isgetsetdescriptor(real)
    return inspect.getdoc(real) if described else None


def as_list(paragraph: str) -> str:
    """A table of names, which Markdown would run together, as a list; anything else as it is."""
    lines = paragraph.splitlines()
    rows = [None if line.startswith(" ") else ROW.fullmatch(line) for line in lines]
    tabular = bool(rows) and rows[0] is not None and all(row or line.startswith(" ") for row, line in zip(rows, lines, strict=True))
    if not tabular or not any(row and row[2] for row in rows):
        return paragraph
    listed = (f"- **{row[1]}**: {row[2] or ''}" if row else f"  {line.strip()}" for row, line in zip(rows, lines, strict=True))
    return "\n".join(line.rstrip() for line in listed)
