# SPDX-License-Identifier: GPL-2.0-only
"""The reference takes names, order and types from the stubs, and the texts from the compiled modules: stubs have none."""

import importlib
import inspect
from functools import reduce
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None or obj.is_module or obj.name == "__init__" or str(obj.filepath).endswith(".py"):
            return
        try:
            module = importlib.import_module(obj.module.path)
            real = reduce(getattr, obj.path.removeprefix(f"{module.__name__}.").split("."), module)
        except AttributeError:
            return  # the files of /sys/kernel/mm/ksm are attributes of a Ksm, and not of its class
        described = inspect.isclass(real) or inspect.isroutine(real) or inspect.isgetsetdescriptor(real)
        text = inspect.getdoc(real) if described else None
        if text:
            obj.docstring = griffe.Docstring(text, parent=obj)
