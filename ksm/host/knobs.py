# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reads what mm/ksm.c of the running kernel has in its sysfs files.
"""The knobs of the running kernel's KSM."""

from __future__ import annotations

import errno
import os

from ksm.host.memory import read_text

RUNNING = "/sys/kernel/mm/ksm"


def running_knobs(names: list[str], folder: str) -> dict[str, str]:
    """What the files of these names have; those that this kernel lacks are left out. OSError."""
    if not os.path.isdir(folder):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    knobs = {}
    for name in names:
        try:
            knobs[name] = chosen(read_text(folder, name).strip())
        except FileNotFoundError:
            continue
    return knobs


def chosen(text: str) -> str:
    """Of "none [scan-time]", the one in brackets; any other text as it is."""
    return text.partition("[")[2].partition("]")[0] or text
