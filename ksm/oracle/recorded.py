# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's outcome of a workload in a file, for machines without that kernel.

In "ksm", "procs" and "pages" a record holds only what has changed since the last record, and None for what has gone. A file has one
record a line. So files stay small, and a recording that is made anew can be read as a diff.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ksm.host.files import write_whole
from ksm.host.json_file import read_json
from ksm.oracle.check import check_outcome, check_workload
from ksm.oracle.compare import Difference, first_difference
from ksm.oracle.kernel import run_kernel
from ksm.oracle.replay import run_port
from ksm.oracle.workload import Json, OracleError

CHANGING = ("ksm", "procs", "pages")


def delta(old: Any, new: Any) -> Any:
    """The change that turns `old` into `new`."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    changed = {key: delta(old.get(key), value) for key, value in new.items() if key not in old or old[key] != value}
    return changed | {key: None for key in old if key not in new}


def apply(old: Any, change: Any) -> Any:
    """The new value: `old` with a change of delta() applied."""
    if not isinstance(change, dict):
        return change
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply(result.get(key), value)
    return result


def pack(records: list[Json]) -> list[Json]:
    last: Json = {}
    packed = []
    for record in records:
        packed.append({key: delta(last.get(key, {}), value) if key in CHANGING else value for key, value in record.items()})
        last |= {key: record[key] for key in CHANGING if key in record}
    return packed


def unpack(packed: list[Json]) -> list[Json]:
    last: Json = {}
    records = []
    for line in packed:
        record = {key: apply(last.get(key, {}), value) if key in CHANGING else value for key, value in line.items()}
        last |= {key: record[key] for key in CHANGING if key in record}
        records.append(record)
    return records


def save(path: Path, workload: Json, outcome: Json) -> None:
    head = {"kernel": outcome["kernel"], "workload": workload}
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in pack(outcome["records"]))
    text = json.dumps(head, separators=(",", ":"))
    write_whole(str(path), f'{text[:-1]},"records":[\n{lines}\n]}}\n')


def outcome_of(data: Json) -> Json:
    """The outcome that a recording holds; "of" is its workload. OracleError for what is not a recording."""
    if not isinstance(data.get("kernel"), str):
        raise OracleError("kernel has to be a string")
    check_workload(data.get("workload"))
    check_outcome(data)
    workload = data["workload"]
    return {"workload": workload.get("name", ""), "of": workload, "kernel": data["kernel"], "records": unpack(data["records"])}


def load(path: Path) -> tuple[Json, Json]:
    """A recording's data, and the kernel's outcome."""
    data = read_json(str(path))
    return data, outcome_of(data)


def record(path: Path, workload: Json) -> None:
    """Run a workload on the running kernel and keep its outcome."""
    save(path, workload, run_kernel(workload, pages=True, events=True))


def replay(path: Path) -> Difference | None:
    """Run a recorded workload on the port: the first difference from what the kernel did."""
    data, outcome = load(path)
    return first_difference(outcome, run_port(data["workload"], pages=True, events=True))
