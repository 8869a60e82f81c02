# SPDX-License-Identifier: GPL-2.0-only
"""Threads and ksmd at the same time. Under ThreadSanitizer: tox -e tsan."""

import importlib.util
from pathlib import Path

import pytest


def load(name):
    spec = importlib.util.spec_from_file_location(f"ksm_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STRESS, SWAP, CHECK, READ = load("stress"), load("stress_swap"), load("stress_check"), load("stress_read")
FINGERPRINTS = load("stress_fingerprints")


def test_no_byte_is_lost():
    errors, steps, passes = STRESS.stress(2)
    assert errors == []
    assert steps > 100
    assert passes > 1


def test_no_byte_is_lost_by_swap_and_migration():
    assert SWAP.stress(2) == []


def test_check_beside_everything():
    errors, checks = CHECK.stress(2)
    assert errors == []
    assert checks > 10


def test_no_byte_is_lost_while_threads_read():
    errors, steps, passes = READ.stress(2)
    assert errors == []
    assert steps > 100
    assert passes > 1


def test_no_fingerprint_is_lost():
    errors, steps, passes = FINGERPRINTS.stress(2)
    assert errors == []
    assert steps > 100
    assert passes > 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_no_fingerprint_is_lost_for_long(seed):
    assert FINGERPRINTS.stress(15, seed)[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_no_byte_is_lost_while_threads_read_for_long(seed):
    assert READ.stress(15, seed)[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_no_byte_is_lost_for_long(seed):
    errors, steps, passes = STRESS.stress(30, seed)
    assert errors == []
    assert steps > 1000
    assert passes > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_no_byte_is_lost_by_swap_and_migration_for_long(seed):
    assert SWAP.stress(15, seed) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_check_beside_everything_for_long(seed):
    errors, checks = CHECK.stress(15, seed)
    assert errors == []
    assert checks > 100
