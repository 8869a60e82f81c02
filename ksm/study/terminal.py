# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Two functions side by side in a terminal."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from ksm.host.text import printable
from ksm.study.align import Row
from ksm.study.kernel import Kernel, StudyError
from ksm.study.pairing import BESIDE, Study, study

LEAST, MOST = 60, 1000  # columns


def print_diff(kernel: Kernel, name: str, console: Console) -> None:
    """The kernel's function on the left, the port's on the right, lines that say the same on one row. StudyError."""
    subject = study(kernel)
    for file in BESIDE:
        if not any(name in (pair.name, pair.renamed) for pair in subject.pairs):
            other = study(kernel, file)
            subject = other if any(name in (pair.name, pair.renamed) for pair in other.pairs) else subject
    pair = subject.pair(name)
    if pair.kernel is None and pair.port is None:
        raise StudyError(f"there is no function {name}() on either side")
    width = (min(max(console.width, LEAST), MOST) - 3) // 2
    left = f"{kernel.name}: {subject.file.name}" + (f", {pair.kernel.name}()" if pair.renamed and pair.kernel else "")
    console.print(Text(f"{left[:width]:<{width}} │ ksm/{subject.file.port}", style="bold"))
    console.print(Text("─" * width + "─┼─" + "─" * width, style="dim"))
    bars = {part.first: f"▾ in the helper {part.name}()" for part in pair.parts}
    for row in pair.rows:
        if bar := bars.get(row[1] or 0):
            console.print(Text(f"{'':<{width}} │ {bar}"[:2 * width + 3], style="dim"), no_wrap=True, overflow="ignore", crop=False)
        print_row(subject, row, width, console)
    if pair.kernel is None or pair.port is None:
        side = subject.file.name if pair.kernel is None else "the port"
        console.print(Text(f"{name}() is not in {side}: {'it is ours' if pair.reason == 'OURS' else pair.reason}", style="dim"))


def print_row(subject: Study, row: Row, width: int, console: Console) -> None:
    cells = []
    for number, lines in zip(row, (subject.theirs.lines if subject.theirs else [], subject.port.lines), strict=True):
        line = printable(lines[number - 1]) if number else ""
        indent = " " * min(len(line) - len(line.lstrip()) + 4, width // 2)
        numbered = f"{number:4} {line}" if number else ""
        cells.append(textwrap.wrap(numbered, width, subsequent_indent="     " + indent, drop_whitespace=False, tabsize=8) or [""])
    for i in range(max(map(len, cells))):
        parts = [cell[i].rstrip() if i < len(cell) else "" for cell in cells]
        text = Text(f"{parts[0]:<{width}} │ {parts[1]}".rstrip())
        for start, part in ((0, parts[0]), (width + 3, parts[1])):
            if part[:4].strip().isdigit() and i == 0:
                text.stylize("dim", start, start + 4)
        if row[0] is None or row[1] is None:
            text.stylize("dim" if not text.plain.strip(" │") else "cyan" if row[1] else "yellow")
        console.print(text, no_wrap=True, overflow="ignore", crop=False)
