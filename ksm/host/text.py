# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the terminal of the computer that this runs on.
"""Text of unknown origin: names from files, processes and recordings."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with "?" for each character that a terminal would act on, or could not show."""
    return "".join(char if char.isprintable() else "?" for char in text)


def size_said(value: str) -> int:
    """The number in COLUMNS or LINES; 0 if it is not a number, or is more than any terminal has."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= 4 else 0


def limit_said(limit: int) -> str:
    """A limit in bytes, as a message names it."""
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"


def size(count: int) -> str:
    """Bytes for a person."""
    for shift, unit in ((30, "GiB"), (20, "MiB")):
        if count >= 1 << shift:
            return f"{count / (1 << shift):,.1f} {unit}"
    return f"{count / 1024:,.1f} KiB"
