# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures: a process that runs the lines that a test sends it."""

import pytest
from targets import Target


@pytest.fixture
def start():
    """A function that starts a target. All targets end with the test."""
    targets = []

    def start(*prefix):
        targets.append(Target(*prefix))
        return targets[-1]

    yield start
    for target in targets:
        target.end()


@pytest.fixture
def target(start):
    return start()
