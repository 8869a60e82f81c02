# SPDX-License-Identifier: GPL-2.0-only
"""Each change of the table can still be made. Whether tests notice it takes long: tox -e mutants."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(f"mutants_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # A NamedTuple with annotations that are strings looks its module up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MUTANTS = load("table").MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_fits(mutant):
    """The code that a change replaces is there, once."""
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old and mutant.breaks


def test_names_are_told_apart():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 100
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


def test_few_have_an_excuse():
    """At least 95 % of the changes have to be noticed."""
    assert sum(bool(mutant.unnoticed) for mutant in MUTANTS) <= len(MUTANTS) * 5 / 100


def test_the_docs_speak_of_these():
    text = (ROOT / "docs" / "mutants.md").read_text()
    assert [mutant.name for mutant in MUTANTS if f"| `{mutant.name}` |" not in text] == []
