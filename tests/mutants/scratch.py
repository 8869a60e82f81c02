# SPDX-License-Identifier: GPL-2.0-only
"""A copy of the project, to be changed and built. See run.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".*", "build", "dist", "__pycache__", "*.egg-info", "*.so")


def put(path: Path, old: str, new: str) -> None:
    """Write `new` where `old` stands once; ValueError where it does not."""
    text = path.read_text()
    if text.count(old) != 1:
        raise ValueError(f"{path}: to be replaced once, found {text.count(old)} times: {old!r}")
    path.write_text(text.replace(old, new))


def compile_tree(tree: Path) -> None:
    """Build the files that have changed, and those that include them: a release build with less optimisation, which is faster."""
    environment = {**os.environ, "KSM_CFLAGS": "-O1", "KSM_DEBUG": "", "KSM_TSAN": "", "KSM_TRACE": ""}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])


def copy_sources(tree: Path) -> None:
    """Copy the project, without build products."""
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
