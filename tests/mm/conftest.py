# SPDX-License-Identifier: GPL-2.0-only
"""A small machine, which is checked at the end, and a process in it. Test files that need another machine have a fixture of their own."""

import pytest

import ksm


@pytest.fixture
def machine():
    with ksm.Machine(memory="4M", max_memory="4M") as machine:
        yield machine
        assert machine.check() == []


@pytest.fixture
def process(machine):
    return machine.spawn()
