# SPDX-License-Identifier: GPL-2.0-only
"""Copy the source tree without what was built in it, and build it there: python tests/tree.py [--copy] FOLDER.

setup.py says what is built how. With --copy, nothing is built.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILT = shutil.ignore_patterns(".git", ".tox", ".fuzz", "build", "dist", "*.so", "__pycache__")


def ignored(folder: str, names: list[str]) -> set[str]:
    """Cython writes .c files beside its sources if it is told to trace lines. Those of third_party are sources."""
    found = set(BUILT(folder, names))
    if ROOT / "third_party" not in (Path(folder), *Path(folder).parents):
        found |= {name for name in names if name.endswith(".c")}
    return found


def main() -> int:
    *options, place = sys.argv[1:]
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT, place, ignore=ignored)
    if options == ["--copy"]:
        return 0
    os.chdir(place)
    return subprocess.call([sys.executable, "setup.py", "-q", "build_ext", "--inplace"])


if __name__ == "__main__":
    sys.exit(main())
