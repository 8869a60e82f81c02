# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""The share of statements that is the same, for readers: in a terminal, as JSON, and in docs/same.md.

    python -m ksm.study.share linux-source-6.12 docs/same.md

writes the tables of that page anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ksm.study import rows
from ksm.study.kernel import Kernel, read_kernel
from ksm.study.same import Row, Table, tables
from ksm.study.standins import IN_THE_KERNEL, IN_THE_PORT, WITHOUT_READERS

COLUMNS = ("statements", "same", "marked", "named", "ours", "recording", "eras")
BEGIN, END = "<!-- ksm study --same: begin -->", "<!-- ksm study --same: end -->"


def percent(row: Row) -> str:
    return f"{100 * row.same / row.statements:.1f} %" if row.statements else ""


def as_text(found: list[Table]) -> str:
    """Every function on a line, then what differs."""
    lines = []
    for table in found:
        width = max(len(row.name) for row in (*table.rows, *table.ours))
        lines += [table.pair.name, f"{'function':{width}}  " + "  ".join(COLUMNS)]
        lines += [line_of(row, width) for row in (*table.rows, *table.ours)]
        total = table.total()
        lines += [f"{line_of(total, width)}  {percent(total)} the same", ""]
    for table in found:
        lines += [difference for row in (*table.rows, *table.ours) for difference in differences(row)]
    return "\n".join(lines).rstrip()


def line_of(row: Row, width: int) -> str:
    return f"{row.name:{width}}  " + "  ".join(f"{number or '':>{len(name)}}" for name, number in zip(COLUMNS, row.counts(), strict=True))


def differences(row: Row) -> list[str]:
    """A line for each difference: where it is, in the kernel's file and in the port's, and what it is."""
    result = []
    for each in row.differences:
        lines = [f"{side} {line}" for side, line in (("kernel", each.kernel), ("port", each.port)) if line]
        result.append(", ".join([f"{each.function}()", *lines]) + f": {each.text}")
    return result


def as_data(kernel: Kernel, found: list[Table]) -> dict[str, Any]:
    """The tables as a value for JSON."""
    return {
        "kernel": kernel.name,
        "files": [{
            "kernel": list(table.pair.kernel), "port": list(table.pair.port), "total": data_of(table.total()),
            "functions": [data_of(row) for row in table.rows], "ours": [data_of(row) for row in table.ours],
        } for table in found],
    }


def data_of(row: Row) -> dict[str, Any]:
    return {"name": row.name, **dict(zip(COLUMNS, row.counts(), strict=True)), "left_out": row.left_out,
            "differences": [asdict(each) for each in row.differences]}


# docs/same.md

def markdown(found: list[Table]) -> str:
    parts = [grid(("files of the kernel", *COLUMNS, ""), [
        (f"`{table.pair.name}`", *map(str, table.total().counts()), percent(table.total())) for table in found])]
    parts += ["## What is missing, and why", *(missing(table) for table in found)]
    parts += ["## What stands for what", "In the kernel, a capital letter for any expression:",
              stand_ins(IN_THE_KERNEL), "In the files of trees, besides:", stand_ins(WITHOUT_READERS),
              "In the port:", stand_ins(IN_THE_PORT), "## Function by function"]
    for table in found:
        parts += [f"### {table.pair.name}", grid(("function", *COLUMNS), [
            (f"`{row.name}`", *(str(number or "") for number in row.counts())) for row in (*table.rows, *table.ours)])]
    return "\n\n".join(parts)


def grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def missing(table: Table) -> str:
    """Names by reason, and where they are missing."""
    names: dict[str, dict[str, None]] = {}
    functions: dict[str, dict[str, None]] = {}
    for row in table.rows:
        for name, reason in sorted(row.left_out.items()):
            names.setdefault(reason, {})[f"`{name}`"] = None
            if name != row.name:
                functions.setdefault(reason, {})[f"`{row.name}`"] = None
    lines = []
    for reason, found in names.items():
        where = list(functions.get(reason, ()))
        place = f" in {len(where)} functions" if len(where) > 3 else f" in {', '.join(where)}" if where else ""
        lines.append(f"- {', '.join(found)}{place}: {reason}")
    return f"`{table.pair.name}`:\n\n" + "\n".join(lines)


def stand_ins(rules: Iterable[tuple[str, str, str]]) -> str:
    return grid(("there", "compared as", "why"), [(f"`{a}`", f"`{b}`", reason) for a, b, reason in rules])


def written(page: str, found: list[Table]) -> str:
    """The page with new tables."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{markdown(found)}\n{END}{rest.partition(END)[2]}"


def main(where: str, page: str) -> None:
    path = Path(page)
    kernel = read_kernel(where)
    path.write_text(rows.written(written(path.read_text(encoding="utf-8"), tables(kernel)), kernel), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
