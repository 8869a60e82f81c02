# SPDX-License-Identifier: GPL-2.0-only
"""The figures at the end of run.py, on the terminal and in docs/mutants.md."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import scratch

if TYPE_CHECKING:
    from run import Outcome

DOCS = scratch.ROOT / "docs" / "mutants.md"
BEGIN, END = "<!-- tests/mutants/run.py: begin -->", "<!-- tests/mutants/run.py: end -->"
WANTED = 95  # percent of the changes that have to be noticed


def end(outcomes: list[Outcome], *, write: bool) -> int:
    """Print the figures, and put them into the docs with `write`. Returns the exit code: 0 if all is as it should be."""
    outcomes = sorted(outcomes, key=lambda outcome: (outcome.mutant.file, outcome.mutant.name))
    wrong = list(surprises(outcomes))
    if write:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        DOCS.write_text(f"{before}{BEGIN}\n{figures(outcomes)}{END}{after}")
    print(f"\n{share(outcomes)}", *wrong, sep="\n")
    return 1 if wrong else 0


def share(outcomes: list[Outcome]) -> str:
    noticed = sum(outcome.what == "noticed" for outcome in outcomes)
    return f"{noticed} of {len(outcomes)} changes are noticed: {100 * noticed / len(outcomes):.1f} %"


def surprises(outcomes: list[Outcome]) -> Iterator[str]:
    for mutant, what, by, _ in outcomes:
        if what == "no build":
            yield f"{mutant.name} cannot be built: {by}"
        elif what == "unnoticed" and not mutant.unnoticed:
            yield f"{mutant.name} is not noticed, and the table has no reason why nothing could"
        elif what == "noticed" and mutant.unnoticed:
            yield f"{mutant.name} is noticed by {by}, and the table says that nothing can"
    noticed = sum(outcome.what == "noticed" for outcome in outcomes)
    if len(outcomes) >= 50 and 100 * noticed < WANTED * len(outcomes):
        yield f"fewer than {WANTED} % are noticed"


def figures(outcomes: list[Outcome]) -> str:
    lines = [f"{share(outcomes)}. CPython {platform.python_version()}, {platform.machine()}.", ""]
    lines += ["| Where | Changes | Noticed |", "|---|---:|---:|"]
    folders: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        folders.setdefault(where(outcome.mutant.file), []).append(outcome)
    for folder, inside in folders.items():
        lines.append(f"| {folder} | {len(inside)} | {sum(outcome.what == 'noticed' for outcome in inside)} |")
    lines += ["", "Not noticed, and why nothing can:", ""]
    lines += [f"- `{outcome.mutant.name}` ({outcome.mutant.breaks}): {outcome.mutant.unnoticed}" for outcome in outcomes
              if outcome.what != "noticed"]  # fmt: skip
    lines += ["", "All of them, and by what they were noticed:", "", "| Change | What it breaks | Noticed by |", "|---|---|---|"]
    lines += [f"| `{outcome.mutant.name}` | {cell(outcome.mutant.breaks)} | {cell(outcome.by or 'nothing')} |" for outcome in outcomes]
    return "\n".join(lines) + "\n"


def where(file: str) -> str:
    path = Path(file)
    return f"`{path}`" if path.name == "ksm.pyx" else f"`{path.parent}/`"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("tests/", "")
