# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the other side of sysfs.
"""The running kernel's own KSM, as everybody may read it."""

from __future__ import annotations

from ksm.host.memory import read_text


def ksm_file(name: str) -> str:
    """A file of /sys/kernel/mm/ksm; "" if there is none."""
    try:
        return read_text("/sys/kernel/mm/ksm", name).strip()
    except OSError:
        return ""


def ksmd_runs() -> bool:
    """Whether it may merge pages now."""
    return ksm_file("run") == "1"


def merged_frames() -> int:
    """Frames in which it has merged pages."""
    return int(ksm_file("pages_shared") or 0)
