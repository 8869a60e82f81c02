# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a program's arguments.
"""Arguments of the functions of the package that open sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from ksm.estimate.scan import Zeros
from ksm.machine import ERAS
from ksm.sources import Which

LONGEST = 30 * 86400  # seconds


def check_arguments(
    texts: Sequence[str],
    *,
    era: str,
    which: str = "prctl",
    zeros: str = "apart",
    threads: int | None = None,
    passes: int | None = None,
    count: int | None = None,
    interval: float | None = None,
    budget: float | None = None,
) -> None:
    """TypeError or ValueError for what makes no sense, before any source is opened."""
    if isinstance(texts, str):
        raise TypeError("sources are a sequence of strings, and not one string")
    for name, value, allowed in (("era", era, ERAS), ("which", which, get_args(Which)), ("zeros", zeros, get_args(Zeros))):
        if value not in allowed:
            raise ValueError(f"{name} is one of {', '.join(allowed)}, not {value!r}")
    for name, number in (("threads", threads), ("passes", passes), ("count", count)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is 1 at least, not {number}")
    for name, seconds in (("interval", interval), ("budget", budget)):
        if seconds is not None and not 0 <= seconds <= LONGEST:
            raise ValueError(f"{name} is 0 to {LONGEST:,} seconds, not {seconds}")
