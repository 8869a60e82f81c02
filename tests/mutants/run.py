# SPDX-License-Identifier: GPL-2.0-only
"""Make each change of table.py in a copy of the project, build that, and run the fast tests until one fails.

    python tests/mutants/run.py                  all of them; about half an hour with two processors
    python tests/mutants/run.py --only NAME ...  these
    python tests/mutants/run.py --sample 10      some, drawn anew each time
    python tests/mutants/run.py --write          all, and the figures into docs/mutants.md

A change is noticed when a test fails, when the interpreter crashes, or when the tests stand still. Tests that read the sources
instead of running them are left out.
"""

import argparse
import os
import random
import re
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import report
import scratch
from table import MUTANTS, Mutant

SILENCE = 90  # seconds without a test that ends, after which a run has come to a standstill
MOST_MEMORY = 4 << 30  # bytes that the tests of one change may take
READ_SOURCES = ("tests/mutants", "tests/kernel/test_mutants.py", "tests/mm/test_beside_the_kernel.py", "tests/mm/test_same_code.py",
                "tests/mm/test_uncovered.py", "tests/study/test_page.py", "tests/study/test_pairing.py", "tests/test_packaging.py",
                "tests/test_docs.py", "tests/test_readme.py")  # fmt: skip
# The tests that are likely to notice a change of these files: they run first, and then all others.
LIKELY = (
    ("ksm/fast/page_keys", ("tests/fast/test_page_keys.py", "tests/fast")),
    ("ksm/fast/xxhash_many", ("tests/fast/test_xxhash_many.py", "tests/fast")),
    ("ksm/fast/", ("tests/fast", "tests/mm")),
    ("ksm/lib/", ("tests/lib", "tests/mm")),
    ("ksm/mm/ksm", ("tests/kernel/test_recorded.py", "tests/mm", "tests/fast")),
    ("ksm/mm/", ("tests/mm", "tests/fs", "tests/test_stateful.py", "tests/kernel/test_recorded.py", "tests/fast")),
    ("ksm/sources/", ("tests/sources", "tests/estimate", "tests/cli")),
    ("ksm/estimate/", ("tests/estimate", "tests/cli")),
    ("ksm/host/", ("tests/host", "tests/estimate", "tests/cli")),
    ("include/", ("tests/lib", "tests/mm")),
)


class Outcome(NamedTuple):
    mutant: Mutant
    what: str  # "noticed", "unnoticed", or "no build"
    by: str  # the test that failed, or what happened
    seconds: float


def own_test_file(file: str) -> str:
    """tests/mm/test_rmap.py for ksm/mm/rmap.pyx."""
    path = Path(file)
    return str(Path("tests", *path.parts[1:-1], f"test_{path.stem}.py"))


def in_order(tree: Path, file: str) -> list[str]:
    """All test files that count. Those that are likely to notice a change of this file come first."""
    first = [own_test_file(file), *next((places for begins, places in LIKELY if file.startswith(begins)), ())]
    found = {str(path.relative_to(tree)): None for place in [*first, "tests"] for path in tests_in(tree / place)}
    return [path for path in found if not path.startswith(READ_SOURCES)]


def tests_in(place: Path) -> Iterator[Path]:
    return iter([place] if place.is_file() else sorted(place.rglob("test_*.py")))


def memory_of(pid: int) -> int:
    """Bytes in memory that this process alone has."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


class Run(NamedTuple):
    """How a run of tests ended: "passed", "failed", or what happened instead; and with which test."""

    how: str
    test: str


def run_tests(tree: Path, selected: list[str], deselected: list[str]) -> Run:
    """Run tests until one fails."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    # With these variables, tests that cannot run here fail, or tests run in another way.
    for name in ("CI", "KSM_LIVE", "KSM_PLAIN"):
        environment.pop(name, None)
    temporary = tree.with_name(f"{tree.name}-temporary")
    command = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=line", "-p", "no:cacheprovider", f"--basetemp={temporary}",
               "-m", "not slow and not kernel and not browser", *(f"--deselect={test}" for test in deselected), *selected]  # fmt: skip
    process = subprocess.Popen(command, cwd=tree, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output = b""
    ended = ""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            last = time.monotonic()
            while not ended:
                if selector.select(timeout=1):
                    data = os.read(process.stdout.fileno(), 65536)
                    if not data:
                        break
                    output += data
                    last = time.monotonic()
                if time.monotonic() - last > SILENCE:
                    ended = "standstill"
                elif memory_of(process.pid) > MOST_MEMORY:
                    ended = "no memory left"
        if not ended:
            process.wait()
    finally:
        if process.returncode is None:
            # The whole group: also processes that the tests have started
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(temporary, ignore_errors=True)
    text = output.decode(errors="replace")
    if not ended and process.returncode >= 0:
        failed = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", text, re.MULTILINE)
        if process.returncode and not failed:
            raise RuntimeError(f"pytest ended with {process.returncode}: {text[-2000:]}")
        return Run("failed", failed[1]) if failed else Run("passed", "")
    last_begun = re.findall(r"^(tests/\S+::.+?)(?: (?:PASSED|FAILED|ERROR|SKIPPED|XFAIL|Fatal).*)?$", text, re.MULTILINE)
    return Run(ended or signal.Signals(-process.returncode).name, last_begun[-1].rstrip() if last_begun else "?")


def test_tree(tree: Path, files: list[str]) -> Run:
    """Run tests until one fails twice. A test that fails only once is left out: a busy computer has made it fail."""
    deselected: list[str] = []
    while True:
        run = run_tests(tree, files, deselected)
        if run.how != "failed" or run_tests(tree, [run.test], []).how != "passed":
            return run
        deselected.append(run.test)


def try_out(base: Path, tree: Path, mutant: Mutant) -> Outcome:
    """Build the change in `tree`, a copy of `base`, and test it."""
    begun = time.monotonic()
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(base, tree, symlinks=True)
    scratch.put(tree / mutant.file, mutant.old, mutant.new)
    try:
        scratch.compile_tree(tree)
    except RuntimeError as error:
        return Outcome(mutant, "no build", str(error), time.monotonic() - begun)
    run = test_tree(tree, in_order(tree, mutant.file))
    by = run.test if run.how == "failed" else f"{run.how} in {run.test}"
    return Outcome(mutant, *(("unnoticed", "") if run.how == "passed" else ("noticed", by)), time.monotonic() - begun)


def run_all(mutants: list[Mutant], folder: Path, jobs: int) -> Iterator[Outcome]:
    base = folder / "base"
    scratch.copy_sources(base)
    scratch.compile_tree(base)
    run = test_tree(base, in_order(base, ""))
    if run.how != "passed":
        sys.exit(f"without a change, too: {run.how}, {run.test}")
    slots: SimpleQueue[Path] = SimpleQueue()
    for number in range(jobs):
        slots.put(folder / f"tree-{number}")

    def one(mutant: Mutant) -> Outcome:
        tree = slots.get()
        try:
            return try_out(base, tree, mutant)
        finally:
            slots.put(tree)

    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(one, mutant) for mutant in mutants]):
            yield done.result()


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether the fast tests notice the changes of table.py.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="make only these changes")
    parser.add_argument("--sample", type=int, metavar="N", help="make N changes, drawn anew each time")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="changes that are tested at a time")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/mutants.md")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    if options.only and len(mutants) < len(options.only):
        parser.error(f"not in the table: {', '.join(sorted(set(options.only) - {mutant.name for mutant in mutants}))}")
    if options.sample:
        mutants = random.sample(mutants, min(options.sample, len(mutants)))
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="ksm-mutants-") as folder:
        for outcome in run_all(mutants, Path(folder), options.jobs):
            outcomes.append(outcome)
            name, what, by = outcome.mutant.name, outcome.what, outcome.by
            print(f"{len(outcomes):4}/{len(mutants)}  {what:9}  {name:40}  {outcome.seconds:4.0f} s  {by}", flush=True)
    sys.exit(report.end(outcomes, write=options.write))


if __name__ == "__main__":
    main()
