# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""How many of the kernel's lines have a twin on their row, for docs/same.md."""

from __future__ import annotations

from ksm.study.kernel import Kernel
from ksm.study.pairing import BESIDE, KSM, study

BEGIN, END = "<!-- ksm study: rows: begin -->", "<!-- ksm study: rows: end -->"


def markdown(kernel: Kernel) -> str:
    """A table of the files, and the functions that have lines without a twin."""
    parts = ["| file of the kernel | functions | lines of code | with a twin on their row |  |\n| --- | --- | --- | --- | --- |"]
    lacking = []
    for file in (KSM, *BESIDE):
        found = study(kernel, file).twins()
        lines, twins = (sum(counts) for counts in zip(*found.values(), strict=True))
        parts[0] += f"\n| `{file.name}` | {len(found)} | {lines} | {twins} | {100 * twins / lines:.1f} % |"
        names = [f"`{name}` {twins} of {lines}" for name, (lines, twins) in found.items() if twins < lines]
        lacking.append(f"`{file.name}`, all functions that have lines without a twin: {', '.join(names)}.")
    return "\n\n".join([*parts, *lacking])


def written(page: str, kernel: Kernel) -> str:
    """The page with a new table."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{markdown(kernel)}\n{END}{rest.partition(END)[2]}"
