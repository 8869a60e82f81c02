# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: which of the eras a kernel's KSM is like.
"""The era that is nearest to a kernel. docs/eras.md says what has changed between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ksm.estimate.counters import Version, version_of
from ksm.host.knobs import RUNNING

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

ERA: Era = "6.12"  # the default of a machine

# From which version on each era is the nearest. 6.6 to 6.10 have what 6.12 counts, and the order of 6.1 for a page.
NEAREST: tuple[tuple[Version, Era], ...] = (((7, 3), "7.3"), ((6, 6), "6.12"), ((3, 9), "6.1"), ((0,), "2.6.38"))
OLDER = ("6.1", "2.6.38")
SINCE_THEN_THE_SAME = (6, 11)  # from this version on, a page's fate is that of 6.12


def nearest_era(release: str) -> Era:
    """The era that is nearest to a kernel of this release; the default if that is no version."""
    try:
        version = version_of(release)
    except ValueError:
        return ERA
    return next(era for first, era in NEAREST if version >= first)


def running_release() -> str:
    """The release of this computer's kernel."""
    return os.uname().release


def running_era() -> Era:
    """The era that is nearest to this computer's kernel. A distribution may have taken smart scan over into an older version."""
    era = nearest_era(running_release())
    return "6.12" if era in OLDER and os.path.exists(os.path.join(RUNNING, "smart_scan")) else era


def era_note(era: Era, release: str) -> list[str]:
    """A line if this kernel's KSM is not that of the default era."""
    try:
        if era == ERA and version_of(release) >= SINCE_THEN_THE_SAME:
            return []
    except ValueError:
        pass
    return [f"the era is {era}, the nearest to the KSM of this computer's Linux {release} (--era takes another one)"]
