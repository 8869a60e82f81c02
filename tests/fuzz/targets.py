# SPDX-License-Identifier: GPL-2.0-only
"""Readers of formats under atheris, which changes files so that new lines of a reader run: python -m fuzz.targets [--seconds N] [NAME]...

Each reader gets N seconds in a process of its own, and begins with the files of readers.corpus(). Findings are exceptions other than a
SourceError of one line, more memory than MEMORY, and inputs that take longer than SLOWEST. The input is kept in --findings, and
`python -m fuzz.targets --replay FILE NAME` runs it again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MEMORY = 2048  # MiB, the interpreter and what is kept of inputs included
SLOWEST = 20  # seconds
LARGEST = 1 << 16  # bytes of an input


def hunt(name: str, seconds: int, findings: Path) -> bool:
    """Let atheris look for inputs that a reader does not stand; whether it has found one."""
    from fuzz.readers import corpus

    with tempfile.TemporaryDirectory(prefix="ksm-fuzz-") as folder:
        for place, data in enumerate(corpus(name)):
            Path(folder, str(place)).write_bytes(data)
        if not os.listdir(folder):
            print(f"fuzz: {name}: left out, its packages are not installed", flush=True)
            return False
        findings.mkdir(parents=True, exist_ok=True)
        limits = [f"-max_total_time={seconds}", f"-max_len={LARGEST}", f"-rss_limit_mb={MEMORY}", f"-timeout={SLOWEST}"]
        told = [f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1"]
        command = [sys.executable, "-m", "fuzz.targets", "--target", name, folder, *limits, *told]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    units = re.search(r"number_of_executed_units: (\d+)", run.stderr)
    covered = re.findall(r" cov: (\d+)", run.stderr)
    print(f"fuzz: {name}: {units[1] if units else 0} inputs, {covered[-1] if covered else 0} places, "
          f"{'a finding' if run.returncode else '0 findings'}", flush=True)  # fmt: skip
    if run.returncode:
        print(run.stdout + run.stderr[-4000:], flush=True)
    return run.returncode != 0


def target(name: str, arguments: list[str]) -> None:
    """Become the process in which atheris runs one reader."""
    import atheris

    with atheris.instrument_imports(include=["ksm", "fuzz.readers"]):
        import ksm.sources.core
        import ksm.sources.fingerprints
        import ksm.sources.flat
        import ksm.sources.kdump
        import ksm.sources.unpack  # noqa: F401 (what is imported here is watched)
        from fuzz.readers import READERS
    run = READERS[name]
    atheris.Setup([name, *arguments], lambda data: run(bytes(data)))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.targets", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="readers; by default all")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader; 60 by default")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="the folder for inputs that were found")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this input once")
    parser.add_argument("--target", metavar="NAME", help=argparse.SUPPRESS)
    options, others = parser.parse_known_args()
    if options.target:
        target(options.target, [*options.names, *others])
    from fuzz.readers import READERS

    if others or not set(options.names) <= READERS.keys():
        parser.error(f"readers are {', '.join(READERS)}")
    if options.replay:
        READERS[options.names[0]](options.replay.read_bytes())
        return 0
    return int(any([hunt(name, options.seconds, options.findings) for name in options.names or READERS]))


if __name__ == "__main__":
    sys.exit(main())
