# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the terminal of who asks.
"""Lines of a report on their way to a terminal, a pipe or a file."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable, Iterator

import click

from ksm.host.text import printable, size


def print_lines(lines: Iterable[tuple[str, bool]]) -> None:
    """Print lines, and whether each is bold. NO_COLOR, a terminal that can do nothing, and a pipe get none of that."""
    plain = os.environ.get("TERM") in ("dumb", "unknown") or bool(os.environ.get("NO_COLOR"))
    for text, bold in lines:
        click.echo(encodable(click.style(text, bold=True) if bold and not plain else text))


def encodable(text: str) -> str:
    """The text with "?" for each character that standard output cannot have, as with LANG=C."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "replace").decode(encoding)
    return text


def wrapped(text: str, width: int, first: str, rest: str | None = None) -> Iterator[tuple[str, bool]]:
    """The text in lines, the first of which begins with `first`, and the others with as much room."""
    indent = first + "  " if rest is None else rest
    for line in textwrap.wrap(printable(text), max(20, width - 1), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False):
        yield line, False


def amount(count: int) -> str:
    """Bytes for a person, which may be less than none."""
    return f"-{size(-count)}" if count < 0 else size(count)
