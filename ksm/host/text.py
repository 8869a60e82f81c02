# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the terminal of the computer that this runs on.
"""Text from somewhere else: names that files, processes and recordings have given themselves."""

from __future__ import annotations


def printable(text: str) -> str:
    """It without what a terminal would act on, or could not show: "?" for each such character."""
    return "".join(char if char.isprintable() else "?" for char in text)
