# SPDX-License-Identifier: GPL-2.0-only
"""Threads and ksmd at the same time. Under ThreadSanitizer: tox -e tsan."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("ksm_stress", Path(__file__).with_name("stress.py"))
STRESS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(STRESS)


def test_no_byte_is_lost():
    errors, steps, passes = STRESS.stress(2)
    assert errors == []
    assert steps > 100
    assert passes > 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_no_byte_is_lost_for_long(seed):
    errors, steps, passes = STRESS.stress(30, seed)
    assert errors == []
    assert steps > 1000
    assert passes > 10
