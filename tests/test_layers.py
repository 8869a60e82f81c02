# SPDX-License-Identifier: GPL-2.0-only
"""Imports run one way, and a cimport is an import: each room may use the rooms that stand before it in ORDER.

import-linter reads Python only, and most of this package is Cython, so the statements are read here.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = [
    "include", "lib", "mm", "face", "record", "draw", "check", "rows", "sources", "estimate", "fleet", "pictures", "study", "oracle",
    "bench", "cli",
]  # fmt: skip

# The layer of each room
ROOMS = {
    "ksm.lib": "lib",
    # The substrate. mm/, fork and exec call each other as in the kernel. host is the computer below. fast and ksm.pyx call each other.
    # mm/ reports a step of a recording without knowing who listens.
    "ksm.mm": "mm", "ksm.kernel": "mm", "ksm.fs": "mm", "ksm.host": "mm", "ksm.fast": "mm", "ksm.step": "mm",
    # What a page is, and what the CPU does with it in place of a store
    "ksm.fingerprint.store": "face", "ksm.fingerprint": "mm",
    # A command, at the place where python -m looks for it
    "ksm.oracle.__main__": "cli",
    "ksm.record": "record", "ksm.draw": "draw", "ksm.check": "check", "ksm.rows": "rows", "ksm.sources": "sources",
    "ksm.estimate": "estimate", "ksm.fleet": "fleet", "ksm.pictures": "pictures", "ksm.study": "study", "ksm.oracle": "oracle",
    "ksm.bench": "bench", "ksm.cli": "cli", "ksm.__main__": "cli",
}  # fmt: skip
FACE = {"ksm", "ksm.constants", "ksm.cpu", "ksm.gate", "ksm.machine", "ksm.process", "ksm.procfs", "ksm.sysfs", "ksm.trace", "ksm.views"}

# Imports inside of methods, which are made when the method is called: (who imports, what).
CALLED_BY_METHODS = {
    ("ksm", "ksm.estimate.doctor"),
    ("ksm", "ksm.estimate.advise"),  # for type checkers, as sweep and sources
    ("ksm", "ksm.estimate.answers"),
    ("ksm", "ksm.estimate.scanned"),
    ("ksm", "ksm.estimate.sweep"),
    ("ksm", "ksm.estimate.watching"),
    ("ksm", "ksm.estimate.why"),
    ("ksm", "ksm.sources"),
    ("ksm.estimate.scanned", "ksm.pictures"),
    ("ksm.estimate.scanned", "ksm.pictures.html"),
    ("ksm.estimate.scanned", "ksm.pictures.page"),
    ("ksm.machine", "ksm.check"),
    ("ksm.machine", "ksm.draw.html"),
    ("ksm.machine", "ksm.draw.svg"),
    ("ksm.machine", "ksm.record.recording"),
}

STATEMENT = re.compile(r"^[ \t]*(?:from[ ]+([\w.]+)[ ]+c?import\b[ ]*([\w, ]*)|c?import[ ]+([\w.]+))", re.MULTILINE)


def layer(module):
    if module.split(".")[0] in ("linux", "trace"):
        return "include"
    for room, name in ROOMS.items():
        if module == room or module.startswith(room + "."):
            return name
    return "face" if module in FACE else None


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in (parts[1:] if parts[0] == "include" else parts) if part != "__init__")


def imports(path):
    """The modules of this package that a file imports, at its top or inside a function."""
    for package, names, plain in STATEMENT.findall(re.sub(r'"""[\s\S]*?"""', "", path.read_text())):
        name = package or plain
        if name.split(".")[0] not in ("ksm", "linux", "trace"):
            continue
        below = [f"{name}.{each}" for each in re.findall(r"\w+", names)]
        yield from [each for each in below if module_exists(each)] or [name]


def module_exists(name):
    path = ROOT / Path(*name.split("."))
    return any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyx")) or (path / "__init__.py").exists()


FILES = sorted(path for top in ("ksm", "include") for suffix in ("py", "pyx", "pxd", "pyi") for path in (ROOT / top).rglob(f"*.{suffix}"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    module = module_of(path)
    if module.startswith("ksm.testing"):
        return  # it may import everything, and nothing may import it
    own = layer(module)
    assert own is not None, f"{module} is in no room that ORDER knows"
    for name in imports(path):
        if (module, name) not in CALLED_BY_METHODS:
            assert not name.startswith("ksm.testing"), f"{module} imports {name}"
            assert ORDER.index(layer(name)) <= ORDER.index(own), f"{module} ({own}) imports {name} ({layer(name)})"


def test_no_room_above_the_substrate_imports_in_a_circle():
    above = [path for path in FILES if path.suffix in (".py", ".pyx") and path.name != "__init__.py"]
    graph = {module_of(path): set(imports(path)) for path in above if layer(module_of(path)) not in ("include", "lib", "mm", "face")}
    done = set()

    def visit(module, way):
        assert module not in way, f"a circle: {' -> '.join([*way[way.index(module):], module])}"
        if module in graph and module not in done:
            for name in graph[module]:
                visit(name, [*way, module])
            done.add(module)

    for module in graph:
        visit(module, [])
