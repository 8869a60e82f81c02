# SPDX-License-Identifier: GPL-2.0-only
"""Build a mutant: a copy of the package that is imported here, with one file changed."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ksm

if TYPE_CHECKING:
    from kernel.mutants.table import Mutant

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = Path(ksm.__file__).resolve().parent
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Distribution, Extension
directives, flags, macros, *files = eval(sys.argv[1])
extensions = [Extension(f.removesuffix(".pyx").replace("/", "."), [f], include_dirs=["include"],
                        extra_compile_args=flags, define_macros=macros) for f in files]
modules = cythonize(extensions, include_path=["include"], compiler_directives=directives, shared_utility_qualified_name="ksm._cyutility",
                    quiet=True)
command = Distribution({"name": "ksm", "ext_modules": modules, "packages": []}).get_command_obj("build_ext")
command.inplace, command.force = True, True
command.ensure_finalized()
command.run()
"""


def build(folder: Path, mutant: Mutant) -> Path:
    """A folder for PYTHONPATH."""
    shutil.copytree(PACKAGE, folder / "ksm", ignore=shutil.ignore_patterns("__pycache__", "*.c"))
    shutil.copytree(ksm.get_include(), folder / "include")
    path = folder / "ksm" / mutant.file
    runpy.run_path(str(ROOT / "tests/mutants/scratch.py"))["put"](path, mutant.old, mutant.new)
    how = runpy.run_path(str(ROOT / "setup.py"))
    for module in mutant.modules:
        for old in path.parent.glob(Path(module).stem + ".*.so"):
            old.unlink()
    files = [f"ksm/{module}" for module in mutant.modules]
    flags = [*how["FLAGS"], "-O1"]  # the mutant is built once and run once
    argument = repr((how["DIRECTIVES"], flags, how["MACROS"], *files))
    subprocess.run([sys.executable, "-c", BUILD, argument], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def verify(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`ksm verify` of the mutant."""
    return subprocess.run([sys.executable, "-m", "ksm", "verify", *map(str, arguments)], cwd=folder, text=True,
                          capture_output=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(folder)})
