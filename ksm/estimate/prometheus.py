# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the text format of Prometheus, version 0.0.4.
"""Counters of KSM, and what they mean, as text for Prometheus: for the textfile collector of node_exporter, or a scrape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ksm.estimate.counters import KSM_STAT, SYSTEM, Counters
from ksm.estimate.doctor import Diagnosis, known

Sample = tuple[Mapping[str, str], float | int]  # labels and value


def escaped(text: str) -> str:
    """A label's value. What is not text (a name from a process may be anything) becomes "?"."""
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text.replace("\\", r"\\").replace('"', r"\"")


def metric(name: str, kind: str, text: str, samples: Iterable[Sample]) -> list[str]:
    """The lines of a metric; none without a sample."""
    found = []
    for labels, value in samples:
        inside = ",".join(f'{label}="{escaped(what)}"' for label, what in labels.items())
        found.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *found] if found else []


def named(name: str, kind: str, prefix: str = "ksm_") -> tuple[str, str]:
    """The metric's name and type: all begin with ksm_, those that only rise end with _total, profits with the unit."""
    name = prefix + name.removeprefix("ksm_").removeprefix("process_")
    if kind == "counter":
        return f"{name}_total", "counter"
    return f"{name}_bytes" if name.endswith("_profit") else name, "gauge"


def exposition(counters: Counters, diagnosis: Diagnosis) -> str:
    """All metrics. Impossible values are left out: the finding that names them is there."""
    lines: list[str] = []
    for name, counter in SYSTEM.items():
        if name not in counters:
            continue
        value = int(counters.advised) if name == "advisor_mode" else counters.raw(name)
        if isinstance(value, int) and (name == "general_profit" or value == counters.get(name)):
            lines += metric(*named(name, counter.kind), counter.help, [({}, value)])
    for what, text, count in (
        ("saved_bytes", "Bytes that KSM saves", diagnosis.saved),
        ("metadata_bytes", "Bytes of rmap_items and stable nodes", diagnosis.metadata),
        ("computed_profit_bytes", "Profit by the formula of general_profit of this version, or of 6.4 before", diagnosis.profit),
        ("volatile_ratio", "Share of rmap_items in no tree", diagnosis.volatile),
    ):
        lines += metric(f"ksm_{what}", "gauge", text, [({}, count)])
    if diagnosis.pass_seconds is not None:
        lines += metric("ksm_pass_seconds", "gauge", "Seconds of a pass at these knobs", [({}, diagnosis.pass_seconds)])
    lines += metric("ksm_finding", "gauge", "1 for each rule of ksm doctor that holds", [
        ({"name": finding.name, "level": finding.level}, 1) for finding in diagnosis.findings])  # fmt: skip
    for name, counter in KSM_STAT.items():
        lines += metric(*named(name, counter.kind, "ksm_process_"), counter.help, [
            ({"process": each.name}, value) for each in known(counters)
            if isinstance(value := each.values.get(name), int) and (name == "ksm_process_profit" or value == each.get(name))])  # fmt: skip
    return "\n".join(lines) + "\n"
