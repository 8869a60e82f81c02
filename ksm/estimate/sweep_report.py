# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what a sweep found, for a person and for a program.
"""The report of a sweep: lines() for a person, as_json() for a program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.estimate.pace import spell
from ksm.estimate.report import LEAST_NAME, columns, mib, percent
from ksm.estimate.sweep import Row, Sweep, most_profit, share
from ksm.estimate.terminal import amount, wrapped
from ksm.host.text import printable, size

DROPPED = ("passes", "of all", "at least", "CPU", "profit", "settled")  # columns, in the order in which a narrow terminal loses them


def as_json(sweep: Sweep) -> dict[str, Any]:
    """The sweep as a value for JSON. Pages are counts of pages, profit is in bytes, times are in seconds, shares are 0 to 1."""
    return {
        **sweep._asdict(),
        "rows": [
            {
                **row._asdict(),
                "ledger": row.ledger.as_json(),
                "freed": row.freed._asdict(),
                "cpu": round(row.cpu, 5),
                "reached": round(row.reached, 5),
                "curve": [[round(seconds, 3), pages] for seconds, pages in row.curve],
            }
            for row in sweep.rows
        ],
    }


def lines(sweep: Sweep, width: int) -> Iterator[tuple[str, bool]]:
    """The lines for a person, `width` columns wide, and whether each is bold."""
    yield from ((line, True) for line, _ in wrapped(answer(sweep), width, "", ""))
    if not sweep.rows:
        return
    yield "", False
    yield from table(sweep, width)
    yield "", False
    best = [row for row in sweep.rows if row.best]
    for row in best:
        yield from wrapped(f"{row.name}: {'; '.join(row.best)}", width, "* ", "  ")
    for note in notes(sweep):
        yield from wrapped(note, width, "- ", "  ")


def answer(sweep: Sweep) -> str:
    done, asked = len(sweep.rows), sweep.asked
    begin = f"Interrupted: {done:,} of {asked:,} settings are done. " if done < asked else ""
    if not sweep.rows:
        return f"{begin}There is nothing to compare."
    most = most_profit(sweep.rows)
    if not most.saved:
        return f"{begin}With none of these settings would KSM free anything of {size(sweep.pages * PAGE_SIZE)}."
    saved = f"{size(most.saved * PAGE_SIZE)} of {size(sweep.pages * PAGE_SIZE)} ({percent(most.saved, sweep.pages)})"
    of_all = f", {100 * most.reached:.0f} % of what equal pages allow" if sweep.bound else ""
    worth = "" if most.ledger.profit > 0 else "Not worth it: "
    return f"{begin}{worth}KSM would free {saved} with {most.name}{of_all}."


def table(sweep: Sweep, width: int) -> Iterator[tuple[str, bool]]:
    """A line for each setting; the best have a star."""
    cells = {
        "saved": [mib(row.saved * PAGE_SIZE) for row in sweep.rows],
        "at least": [mib(least(row) * PAGE_SIZE) for row in sweep.rows],
        "of all": [f"{100 * row.reached:.1f} %" if sweep.bound else "-" for row in sweep.rows],
        "settled": [spell(row.seconds) if row.settled and row.seconds is not None else "never" for row in sweep.rows],
        "passes": [f"{row.passes}" for row in sweep.rows],
        "CPU": [share(row.cpu) for row in sweep.rows],
        "profit": [mib(row.ledger.profit) for row in sweep.rows],
    }
    if all(row.freed.most - row.freed.least <= row.freed.most / 100 for row in sweep.rows):
        del cells["at least"]
    longest = max(columns(printable(row.name)) for row in sweep.rows)
    widths = {name: max(len(name), *map(len, column)) for name, column in cells.items()}
    for name in DROPPED:
        if 2 + LEAST_NAME + sum(widths.values()) + 2 * len(widths) <= width:
            break
        widths.pop(name, None)
    room = max(LEAST_NAME, min(longest, width - 2 - sum(widths.values()) - 2 * len(widths)))
    heads = "".join(f"  {name:>{wide}}" for name, wide in widths.items())
    yield f"  {'Setting':<{room}}{heads}", True
    for number, row in enumerate(sweep.rows):
        *before, name = name_lines(printable(row.name), room, width - 2)
        for line, text in enumerate(before):
            yield f"{'*' if row.best and not line else ' '} {text}", bool(row.best)
        text = name + " " * (room - columns(name)) + "".join(f"  {cells[column][number]:>{wide}}" for column, wide in widths.items())
        yield f"{'*' if row.best and not before else ' '} {text}", bool(row.best)


def name_lines(name: str, room: int, width: int) -> list[str]:
    """The name of a row in lines of `width` columns. The last one, which has the figures beside it, has `room`."""
    if columns(name) <= room:
        return [name]
    lines = [""]
    for part in name.split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if columns(longer) < width:
            lines[-1] = longer
        else:
            lines.append(part)
    before, comma, last = lines[-1].rpartition(", ")
    if 2 + columns(last) <= room and (before or lines[:-1]):
        lines[-1:] = [*([before] if comma else []), "  " + last]
    else:
        lines.append("")
    return [line + "," if line and after else line for line, after in zip(lines, [*lines[1:], ""], strict=True)]


def least(row: Row) -> int:
    """Pages that the setting frees at least."""
    return row.saved - (row.freed.most - row.freed.least)


def notes(sweep: Sweep) -> list[str]:
    """What the columns mean, and what to know before believing them."""
    if not sweep.rows:
        return sweep.notes
    how = "measured here, with the port's own steps" if sweep.measured else "as given with --cost"
    said = [f"of all: of the {size(sweep.bound * PAGE_SIZE)} that would be free if of all equal pages one were kept, and none of zeros"]
    if not sweep.bound:
        said = []
    said += [
        f"CPU: ksmd's share of a processor from then on, at {sweep.cost:,.0f} ns a page ({how})",
        "saved, and profit, which is saved less KSM's own structures: in MiB",
    ]
    if any(not row.settled for row in sweep.rows):
        said.append("never: this memory does not hold still, and the last pass still changed something")
    worst = min(sweep.rows, key=lambda row: row.ledger.profit)
    if worst.ledger.profit < 0:
        said.append(f"{worst.name} costs more than it saves: {amount(worst.ledger.profit)}")
    return said + sweep.notes
