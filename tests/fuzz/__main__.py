# SPDX-License-Identifier: GPL-2.0-only
"""python -m fuzz [--minutes N] [--lives N] [--seed N] [--without KIND]... [--replay FILE]"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from fuzz import sanitizers


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Random lives of machines, with every byte and every answer looked at."
    )
    parser.add_argument("--minutes", type=float, help="how long to run; 10 unless --lives or --seed is given")
    parser.add_argument("--lives", type=int, help="how many lives to run; one if --seed is given alone")
    parser.add_argument("--seed", type=int, help="the seed of the first life, the others count up from it; by default a random one")
    parser.add_argument("--without", action="append", default=[], metavar="KIND", help="leave this kind out; --without help lists them")
    parser.add_argument("--only", metavar="LIFE", help="lives of this kind: calls, ksmd, threads, signals, forks, refused")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="the folder for what was found")
    parser.add_argument("--shrink", type=float, default=60, metavar="SECONDS", help="time for shrinking each finding; 0: do not shrink")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run a life.json of the findings, and print its calls")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if sanitizers.sanitized() and "KSM_FUZZ" not in os.environ:
        environment = {**os.environ, **sanitizers.environment(), "KSM_FUZZ": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "fuzz", *sys.argv[1:]], environment)
    from fuzz.hunt import Hunt, live, read
    from fuzz.life import KINDS, LIVES

    unknown = (set(options.without) | ({options.only} - {None})) - {*KINDS, *LIVES}
    if unknown:
        width = max(map(len, KINDS))
        print(*(f"{kind:{width}}  {text}" for kind, text in KINDS.items()), sep="\n")
        return 0 if unknown == {"help"} else 2
    if options.replay is not None:
        folder = Path(tempfile.mkdtemp(prefix="ksm-fuzz-"))
        result = live(json.loads(options.replay.read_text()), set(options.without), folder)
        print(read(folder / "calls"), result.report, f"{result.kind}: {result.text}" if result.text else "all is well", sep="\n")
        shutil.rmtree(folder, ignore_errors=True)
        return 1 if result.text else 0
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    lives, minutes = options.lives, options.minutes
    if lives is None and minutes is None:
        lives, minutes = (1, None) if options.seed is not None else (None, 10)
    print(f"fuzz: from seed {seed} on, {'with' if sanitizers.sanitized() else 'without'} sanitizers"
          + "".join(f", without {kind}" for kind in options.without), flush=True)  # fmt: skip
    return Hunt(set(options.without), options.findings, options.shrink, options.only).run(seed, lives, minutes)


if __name__ == "__main__":
    sys.exit(main())
