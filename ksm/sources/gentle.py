# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: manners.
"""A scan that leaves time and locks to the processes that it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ksm.sources.pace import set_share

SHARE = 0.25  # of one processor's time


@contextmanager
def gently(yes: bool = True) -> Iterator[None]:
    """Read less at once, and rest three times as long after each look: see pace.pyx. It holds for all of this program.

    The priority stays. Who has a lower one may lose its processor while it has a lock, and who waits for the lock waits for all others.
    """
    before = set_share(SHARE if yes else 0)
    try:
        yield
    finally:
        set_share(before)
