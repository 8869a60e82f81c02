# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the terminal of the computer that this runs on.
"""Text from somewhere else: names that files, processes and recordings have given themselves."""

from __future__ import annotations


def printable(text: str) -> str:
    """It without what a terminal would act on, or could not show: "?" for each such character."""
    return "".join(char if char.isprintable() else "?" for char in text)


def size_said(value: str) -> int:
    """A number of columns or lines that the environment says; 0 if that is none, or more than any terminal has."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= 4 else 0


def limit_said(limit: int) -> str:
    """Bytes, as a limit is named."""
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
