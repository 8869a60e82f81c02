# SPDX-License-Identifier: GPL-2.0-only
"""`ksm verify` finds bugs: each bug of mutants/table.py is built into a copy, and has to be found, by the running kernel or, without KSM,
by the recorded outcomes.

    pytest -m slow tests/kernel/test_mutants.py
"""

import importlib.util
import json
import shlex
import sys
from pathlib import Path

import pytest

import ksm
from ksm.oracle.kernel import unavailable

HERE = Path(__file__).parent
LONG = [pytest.mark.kernel, pytest.mark.slow]


def load(name):
    spec = importlib.util.spec_from_file_location(f"mutants_{name}", HERE / "mutants" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MUTANTS, build, verify = load("table").MUTANTS, load("build").build, load("build").verify
GUEST_MUTANTS = load("table").GUEST_MUTANTS


def marked(test):
    for mark in LONG:
        test = mark(test)
    return test


@pytest.mark.parametrize("mutant", [*MUTANTS, *GUEST_MUTANTS], ids=lambda mutant: mutant.name)
def test_fits(mutant):
    """The code that a mutant changes is there, once."""
    assert (load("build").PACKAGE / mutant.file).read_text().count(mutant.old) == 1


@marked
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_found(mutant, tmp_path):
    folder = build(tmp_path, mutant)
    recorded = verify(folder, "--first", "--recorded", *sorted((HERE / "recorded").glob("*.json")))
    assert recorded.returncode == 1, recorded.stdout + recorded.stderr
    if not unavailable():
        live = verify(folder, "--first", "--seed", "0..199")
        assert live.returncode == 1, live.stdout + live.stderr


@marked
def test_shrinks_to_what_shows_the_bug(tmp_path):
    """The bug lets a third page share at a limit of 2. A few equal pages show it: 40 steps shrink to two at most."""
    mutant = next(each for each in MUTANTS if each.name == "sharing-limit-off-by-one")
    folder = build(tmp_path, mutant)
    home = str(Path(ksm.__file__).resolve().parents[1])
    healthy = shlex.join(["env", f"--chdir={home}", sys.executable, "-m", "ksm", "replay", "-", "--pages", "--events"])
    result = verify(folder, "--first", "--shrink", "--against", healthy, "--seed", "0..20")
    assert result.returncode == 1, result.stderr
    smallest = json.loads(result.stdout.splitlines()[-1])
    assert len(smallest["steps"]) <= 2, result.stdout
    assert sum(vma["pages"] for proc in smallest["procs"] for vma in proc["vmas"]) <= 4, result.stdout


@marked
def test_the_port_itself_is_no_mutant(tmp_path):
    """A copy without a bug is the same as the kernel: it is the bug that is found, and not how the copy was built."""
    table = load("table")
    same = table.Mutant("same", "    if age < 3:\n", "    if age < 3 :\n")
    folder = build(tmp_path, same)
    result = verify(folder, "--recorded", *sorted((HERE / "recorded").glob("*.json")))
    assert result.returncode == 0, result.stdout + result.stderr
