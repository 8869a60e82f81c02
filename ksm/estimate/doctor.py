# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what the counters of a kernel's KSM mean, and what is wrong.
"""What counters of KSM mean: diagnose() for a program, lines() for a person, as_json() for another program."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.counters import RMAP_ITEM, Counters, Process, Stat, Version, version_of
from ksm.estimate.impossible import RULES
from ksm.estimate.pace import spell
from ksm.estimate.rules import BUG, PROBLEM, REMARK
from ksm.estimate.terminal import amount, wrapped
from ksm.host.text import printable, size

LEVELS = (BUG, PROBLEM, REMARK)
SHOWN = 10  # processes
FULL_WIDTH = 76  # of the table of pages


class Finding(NamedTuple):
    """What a rule has found: the rule's name; "kernel bug", "problem" or "remark"; a sentence; what to do."""

    name: str
    level: str
    sentence: str
    advice: str


class Diagnosis(NamedTuple):
    """What counters of KSM mean.

    kernel        the version whose formulas were used, as numbers: (6, 12)
    counters      what was read, by name; numbers, and the word of advisor_mode
    missing       of pages_shared, pages_sharing, pages_unshared and pages_volatile those that were not read, and count as 0 below; the
                  rmap_items then follow from general_profit or from the processes, if these were read
    saved         bytes: (pages_sharing + ksm_zero_pages) pages; without ksm_zero_pages before 6.6
    metadata      bytes of rmap_items and stable nodes
    profit        bytes, as general_profit counts them in this version; before 6.4, as in 6.4
    volatile      share of the rmap_items, 0 to 1
    pass_seconds  how long ksmd takes for a pass at these knobs; None if the knobs were not read
    formulas      (what, the formula with its numbers, bytes) of saved, metadata and profit; none if pages_sharing was not read
    findings      what is to be known: faults of the kernel first, then problems, then remarks
    """

    kernel: Version
    counters: dict[str, int | str]
    missing: list[str]
    saved: int
    metadata: int
    profit: int
    volatile: float
    pass_seconds: float | None
    formulas: list[tuple[str, str, int]]
    findings: list[Finding]


def diagnose(
    counters: Stat, processes: Mapping[str, Stat] | None = None, *, kernel: str | None = None, page_size: int = PAGE_SIZE
) -> Diagnosis:
    """See ksm.doctor()."""
    return of_counters(Counters(counters, processes or {}, version_of(os.uname().release if kernel is None else kernel), page_size))


def of_counters(counters: Counters) -> Diagnosis:
    found = [Finding(rule.name, rule.level, rule.sentence(counters), rule.advice) for rule in RULES if rule.when(counters)]
    return Diagnosis(
        kernel=counters.kernel,
        counters=dict(counters.values),
        missing=counters.missing,
        saved=counters.saved * counters.page_size,
        metadata=counters.metadata,
        profit=counters.profit,
        volatile=counters.volatile / counters.items if counters.items else 0.0,
        pass_seconds=counters.pass_seconds(),
        formulas=counters.formulas(),
        findings=sorted(found, key=lambda finding: LEVELS.index(finding.level)),
    )


def as_json(counters: Counters, diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as a value for JSON, with the processes. Pages are counts of pages, everything else is in bytes or seconds."""
    return {
        **diagnosis._asdict(),
        "kernel": ".".join(map(str, diagnosis.kernel)),
        "page_size": counters.page_size,
        "formulas": [{"name": name, "formula": formula, "bytes": count} for name, formula, count in diagnosis.formulas],
        "findings": [finding._asdict() for finding in diagnosis.findings],
        "processes": [{"name": process.name, **process.values} for process in known(counters)],
    }


def known(counters: Counters) -> list[Process]:
    """The processes that KSM has to do with, those with most rmap_items first."""
    return sorted((each for each in counters.processes if any(each.values.values())), key=lambda each: -each.items)


def lines(counters: Counters, diagnosis: Diagnosis, width: int) -> Iterator[tuple[str, bool]]:
    """The lines for a person, `width` columns wide, and whether each is bold."""
    for text, _ in wrapped(answer(counters, diagnosis), width, "", ""):
        yield text, True
    yield "", False
    for text, count, note in levels(counters):
        figures = f"{count:>13,}{size(count * counters.page_size):>12}  {note}".rstrip()
        if width >= FULL_WIDTH:
            yield f"{text:<40}{figures}", False
        else:
            yield from wrapped(text, width, "")
            yield f"    {figures.lstrip()}", False
    if counters.missing:
        yield from wrapped(f"Not read: {', '.join(counters.missing)}.", width, "")
    if diagnosis.formulas:
        yield "", False
        yield f"By the formulas of Linux {'.'.join(map(str, diagnosis.kernel))}:", False
    for name, formula, count in diagnosis.formulas:
        yield from wrapped(f"{name} = {formula} = {count:,} ({amount(count)})", width, "  ")
    if diagnosis.pass_seconds is not None and counters.items:
        yield from wrapped(f"a pass over {counters.items:,} pages takes {spell(diagnosis.pass_seconds)} ({counters.pace()})", width, "  ")
    yield from processes_table(counters, width)
    for level in LEVELS:
        found = [finding for finding in diagnosis.findings if finding.level == level]
        if found:
            yield "", False
            yield {BUG: "What cannot be (a kernel's fault)", PROBLEM: "What is wrong", REMARK: "What else to know"}[level], True
        for finding in found:
            yield from wrapped(f"{finding.sentence}.", width, "- ", "  ")
            yield from wrapped(f"To do: {finding.advice}.", width, "  ", "    ")


def answer(counters: Counters, diagnosis: Diagnosis) -> str:
    wrong = sum(finding.level != REMARK for finding in diagnosis.findings)
    verdict = f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong" if wrong else "nothing is wrong"
    if "pages_sharing" not in counters:
        return f"What KSM saves is not known, without pages_sharing; {verdict}."
    if not counters.items and not counters.saved:
        return f"KSM saves nothing; {verdict}."
    return f"KSM saves {size(diagnosis.saved)}, or {amount(diagnosis.profit)} after its rmap_items; {verdict}."


def levels(counters: Counters) -> Iterator[tuple[str, int, str]]:
    """What becomes of pages: what it is, how many, and the share of those that ksmd keeps a note of."""
    items = counters.items
    for text, name in (("saved: further mappings of merged pages", "pages_sharing"), ("kept: the one copy of merged pages", "pages_shared"),
                       ("no equal: pages_unshared", "pages_unshared"), ("volatile, skipped or new: pages_volatile", "")):  # fmt: skip
        count = counters.get(name) if name else counters.volatile
        if name in counters or (not name and ("pages_volatile" in counters or count)):
            yield text, count, f"{100 * count / items:.1f} %" if items else ""
    if "ksm_zero_pages" in counters:
        yield "saved: zero pages, not among the above", counters.get("ksm_zero_pages"), ""


def processes_table(counters: Counters, width: int) -> Iterator[tuple[str, bool]]:
    found = [process for process in known(counters) if process.items or process.saved]
    if not found:
        return
    yield "", False
    room = min(28, max(12, width - 1 - 3 * 14))
    heads = ["rmap_items", "pages saved", "profit"] if width > room + 3 * 14 else ["rmap_items", "profit"]
    yield f"{'Process':<{room}}{''.join(f'{head:>13} ' for head in heads)}".rstrip(), True
    for process in found[:SHOWN]:
        profit = amount(process.saved * counters.page_size - process.items * RMAP_ITEM)
        cells = {"rmap_items": f"{process.items:,}", "pages saved": f"{process.saved:,}", "profit": profit}
        yield f"{printable(process.name)[: room - 1]:<{room}}{''.join(f'{cells[head]:>13} ' for head in heads)}".rstrip(), False
    if len(found) > SHOWN:
        yield f"and {len(found) - SHOWN:,} more; --json lists all", False


def changes(before: Counters, now: Counters) -> str:
    """What is different from an earlier reading."""
    more = (now.saved - before.saved) * now.page_size
    parts = [f"{'+' if more >= 0 else ''}{amount(more)} saved"]
    for name in ("full_scans", "pages_scanned", "cow_ksm"):
        if name in now and name in before:
            parts.append(f"{now.get(name) - before.get(name):+,} {name}")
    return ", ".join(parts)
