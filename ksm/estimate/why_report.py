# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: why pages are merged, or not, for a person and for a program.
"""What `ksm why` prints: lines() for a person, as_json() for a program; story_lines() and story_json() of one page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.estimate.reasons import BY_NAME, REASONS, Group
from ksm.estimate.report import all_notes, columns, mib, noted, shortened, shown_notes
from ksm.estimate.why import Chance, Examined, Gain, Region, Story, Why
from ksm.host.text import printable, size
from ksm.record import decisions

Line = tuple[str, bool]  # and whether it is bold

GROUPS: dict[Group, str] = {
    "merged": "Merged", "compared": "Looked at, and not merged", "not looked at": "Never looked at", "not there": "Not there",
}  # fmt: skip
SHOWN = 20  # regions, sources
SHOWN_WHERE = 3  # sources of a chance
LEAST_NAME = 17
LEAST_SHARE = 0.01  # of the pages of a reason: a smaller gain is in the table only
LISTED = 20  # pages that share a frame

# What a visit has decided
DECISIONS = {
    decisions.FIRST_VISIT: "its checksum was taken",
    decisions.CHANGED: "it had changed since the visit before: not compared",
    decisions.SKIPPED: "smart_scan passed over it",
    decisions.TO_ZERO_PAGE: "it holds zeros: the kernel's zero page took its place",
    decisions.MERGED: "merged",
    decisions.NO_EQUAL: "no page was equal: it waits in the unstable tree",
    decisions.EQUAL_FULL: "all frames that have its content are full (max_page_sharing): it waits in the unstable tree",
    decisions.SAME_FRAME: "its own frame was in the unstable tree, by a process that shares it since a fork",
    decisions.MET_GONE: "the search met an item whose page was gone, and gave up for this pass",
    decisions.OTHER_NODE: "its equal has gone to another NUMA node: merge_across_nodes is 0",
    decisions.HELD: "it has an equal, and was not merged: somebody else holds a reference on it",
    decisions.EQUAL_HELD: "its equal was not merged: somebody else holds a reference on that",
    decisions.BUSY: "the merged page that is equal was locked",
    decisions.DIFFERS: "one of the two pages changed while they were merged",
    decisions.FAILED: "it could not be merged: it is locked, its huge page could not be split, or its mapping is gone",
}


def gain_json(gains: dict[str, Gain]) -> dict[str, dict[str, int]]:
    return {name: gain._asdict() for name, gain in gains.items()}


def region_json(region: Region) -> dict[str, Any]:
    return {
        "start": region.start,
        "end": region.end,
        "name": region.name,
        "pages": region.pages,
        **({} if region.rss is None else {"rss": region.rss, "swap": region.swap}),
        "reasons": region.reasons,
        "gains": gain_json(region.gains),
    }


def as_json(why: Why) -> dict[str, Any]:
    """The answer as a value for JSON. docs/why.md says what everything is."""
    pages = why.reasons
    known = {chance.reason.name: chance for chance in why.chances()}
    reasons = []
    for reason in REASONS:
        if count := pages.get(reason.name, 0):
            chance = known.get(reason.name)
            reasons.append({
                "name": reason.name, "group": reason.group, "pages": count, "equal": chance.equal if chance else 0,
                "freed": chance.freed if chance else 0, "sentence": reason.sentence, "remedy": reason.remedy,
            })  # fmt: skip
    return {
        "era": why.scan.era,
        "ksm": why.scan.ksm,
        "ledger": why.scan.ledger.as_json(),
        "passes": why.scan.passes,
        "settled": why.scan.settled,
        "quick": why.quick,
        "reasons": reasons,
        "sources": [
            {
                "name": source.name,
                "kind": source.kind,
                "pages": source.pages,
                "reasons": source.reasons,
                "notes": list(source.notes),
                "regions": [region_json(region) for region in source.regions],
            }
            for source in why.sources
        ],
        "notes": all_notes(why.scan),
    }


def lines(why: Why, width: int) -> Iterator[Line]:
    """The lines of the report, and whether each is bold."""
    for line, _ in wrapped(answer(why), width, "  "):
        yield line, True
    yield "", False
    yield from table(why, width)
    chances = [chance for chance in why.chances() if chance.freed is None or chance.freed >= LEAST_SHARE * chance.pages]
    if chances:
        yield "", False
        yield "What could be gained", True
        for number, chance in enumerate(chances, 1):
            yield from wrapped(f"{number}. {said(chance, len(why.sources) > 1)}", width, " " * (len(str(number)) + 2))
    if len(why.sources) > 1:
        yield "", False
        yield from sources_table(why, width)
    yield "", False
    yield from regions_table(why, width)
    yield "", False
    for line in noted([(source.name, note) for source in why.sources for note in source.notes]):
        yield from wrapped(f"- {line}", width, "  ")
    for note in shown_notes(why.scan):
        yield from wrapped(f"- {note}", width, "  ")


def wrapped(text: str, width: int, indent: str) -> Iterator[Line]:
    for line in textwrap.wrap(printable(text), max(20, width - 1), subsequent_indent=indent, break_on_hyphens=False):
        yield line, False


def answer(why: Why) -> str:
    """The first line: how much merges, and where the most of the rest is."""
    pages = why.reasons
    there = sum(count for name, count in pages.items() if BY_NAME[name].group != "not there")
    if not there:
        return "There are no pages."
    merged = sum(count for name, count in pages.items() if BY_NAME[name].group == "merged")
    text = f"Of {size(there * PAGE_SIZE)}, {size(merged * PAGE_SIZE)} are merged ({100 * merged / there:.1f} %)"
    if why.scan.ledger.freed:
        text += f", which frees {size(why.scan.ledger.freed * PAGE_SIZE)}"
    rest = {name: count for name, count in pages.items() if BY_NAME[name].group in ("compared", "not looked at")}
    if rest:
        name = max(rest, key=lambda each: rest[each])
        text += f"; most of the rest ({100 * rest[name] / sum(rest.values()):.0f} %): {BY_NAME[name].title}"
    return text + "."


def table(why: Why, width: int) -> Iterator[Line]:
    """A line for each reason, with what would be freed if its pages could merge."""
    pages = why.reasons
    there = sum(count for name, count in pages.items() if BY_NAME[name].group != "not there")
    known = {chance.reason.name: chance for chance in why.chances()}
    rows: list[tuple[list[str], bool]] = [(["", "Pages", "MiB", "%", "could free"], True)]
    for group, title in GROUPS.items():
        of_group = [reason for reason in REASONS if reason.group == group and pages.get(reason.name)]
        if not of_group:
            continue
        total = sum(pages[reason.name] for reason in of_group)
        in_all = group != "not there"
        share = f"{100 * total / there:.1f}" if in_all and there else ""
        if not in_all:
            rows.append(([title, f"{total:,}", mib(total * PAGE_SIZE), "", ""], True))
            continue
        rows.append(([title, f"{total:,}", mib(total * PAGE_SIZE), share, ""], True))
        for reason in of_group:
            count = pages[reason.name]
            chance = known.get(reason.name)
            freed = "" if chance is None else "?" if chance.freed is None else mib(chance.freed * PAGE_SIZE)
            rows.append(([f"  {reason.title}", f"{count:,}", mib(count * PAGE_SIZE), f"{100 * count / there:.1f}", freed], False))
    yield from laid_out(rows, width)


def laid_out(rows: list[tuple[list[str], bool]], width: int, last_left: bool = False) -> Iterator[Line]:
    """Rows of cells, the first one to the left. Where the terminal is narrow, the first cell takes several lines, and columns are left
    out.
    """
    number = len(rows[0][0])
    kept = [*range(1, number)]
    widths = [max(columns(row[column]) for row, _ in rows) for column in range(number)]
    for column in (2, 4):
        if LEAST_NAME + sum(widths[each] + 2 for each in kept) > width and column in kept and len(kept) > 1:
            kept.remove(column)
    room = max(LEAST_NAME, min(widths[0], width - 1 - sum(widths[each] + 2 for each in kept)))
    for row, bold in rows:
        indent = " " * (len(row[0]) - len(row[0].lstrip()))
        *before, last = textwrap.wrap(row[0].strip(), room, initial_indent=indent, subsequent_indent=indent + "  ") or [""]
        for part in before:
            yield part, bold
        cells = [last + " " * (room - columns(last))]
        for column in kept:
            gap = " " * (widths[column] - columns(row[column]))
            cells.append(row[column] + gap if last_left and column == number - 1 else gap + row[column])
        yield "  ".join(cells).rstrip(), bold


def said(chance: Chance, several: bool) -> str:
    """A chance in a sentence."""
    total = chance.pages * PAGE_SIZE
    if chance.freed is None:
        known = "their contents were not read (--quick)"
    elif chance.reason.group == "compared":
        known = f"of which {percent(chance.equal or 0, chance.pages)} have an equal now: {size(chance.freed * PAGE_SIZE)} could be freed"
    else:
        known = f"of which {percent(chance.equal or 0, chance.pages)} would merge, and free {size(chance.freed * PAGE_SIZE)}"
    where = ""
    if several:
        shown = chance.where[:SHOWN_WHERE]
        more = len(chance.where) - len(shown)
        where = " (" + ", ".join(f"{name}: {size(count * PAGE_SIZE)}" for name, count in shown) + (f", {more} more" if more else "") + ")"
    return f"{chance.reason.title}: {size(total)}, {known}{where}. What to do: {chance.reason.remedy}"


def percent(part: int, total: int) -> str:
    return f"{100 * part / total:.0f} %" if total else "0 %"


def main_reason(reasons: dict[str, int], there: int) -> str:
    """The reason of most pages."""
    found = {name: count for name, count in reasons.items() if BY_NAME[name].group != "not there"}
    if not found:
        return "not there"
    name = max(found, key=lambda each: found[each])
    return BY_NAME[name].title if found[name] == there else f"{percent(found[name], there)} {BY_NAME[name].title}"


def merged_of(reasons: dict[str, int]) -> int:
    return sum(count for name, count in reasons.items() if BY_NAME[name].group == "merged")


def there_of(reasons: dict[str, int]) -> int:
    return sum(count for name, count in reasons.items() if BY_NAME[name].group != "not there")


def sources_table(why: Why, width: int) -> Iterator[Line]:
    every = sorted(why.sources, key=lambda source: -there_of(source.reasons))
    rows = [((source.name, ""), source.reasons, sum(region.freed for region in source.regions)) for source in every]
    yield from listing("Source", rows, width, "sources")


def regions_table(why: Why, width: int) -> Iterator[Line]:
    """The regions with what could be freed, those with most first; then the largest."""
    every = sorted(why.regions, key=lambda each: (-each[1].freed, -each[1].there))
    several = len(why.sources) > 1
    rows = [(named(source, region, several), region.reasons, region.freed) for source, region in every if region.there]
    yield from listing("Region", rows, width, "regions")


def named(source: Examined, region: Region, several: bool) -> tuple[str, str]:
    """Where a region is, and its name."""
    at = f"{region.start:x}"
    name = source.name.partition(" (")[0] if source.kind == "process" else source.name.rpartition("/")[2]
    return (f"{name}: {at}" if several else at), region.name


def listing(title: str, every: list[tuple[tuple[str, str], dict[str, int], int]], width: int, what: str) -> Iterator[Line]:
    """A line for each source or region: `every` has its name in two parts, of which the first is not cut, its reasons and what could be
    freed.
    """
    cells = [["MiB", "merged", "gain", "most of its pages"]]
    for _, reasons, freed in every[:SHOWN]:
        there = there_of(reasons)
        mibs = (mib(count * PAGE_SIZE) for count in (there, merged_of(reasons), freed))
        cells.append([*mibs, main_reason(reasons, there)])
    room = max(LEAST_NAME, width - 1 - sum(max(columns(row[column]) for row in cells) + 2 for column in range(4)))
    rows = [([title, *cells[0]], True)]
    for ((first, rest), _, _), row in zip(every, cells[1:], strict=False):
        name = shortened(printable(first), room)
        if rest:
            name += " " + begin(short_name(printable(rest)), max(4, room - columns(name) - 1))
        rows.append(([name, *row], False))
    yield from laid_out(rows, width, last_left=True)
    if len(every) > SHOWN:
        left = sum(there_of(reasons) for _, reasons, _ in every[SHOWN:])
        yield from wrapped(f"and {len(every) - SHOWN:,} more {what}, with {size(left * PAGE_SIZE)}; --json lists all", width, "  ")


def short_name(name: str) -> str:
    """Of a file, its name without folders, and without what /proc says of one that has none."""
    name = name.removesuffix(" (deleted)")
    return name if name == "/dev/zero" else name.rpartition("/")[2]


def begin(name: str, room: int) -> str:
    """The name, cut to fit: its beginning stays."""
    if columns(name) <= room:
        return name
    while columns(name) >= room:
        name = name[:-1]
    return name + "…"


# One page


def story_lines(story: Story, width: int) -> Iterator[Line]:
    place = story.place
    region = story.region
    where = f" in {region.start:#x}-{region.end:#x} {region.name}".rstrip() if region else ", in no mapping"
    yield f"{printable(place.source)}, {place.address:#x}{printable(where)}: {story.reason.title}", True
    yield from wrapped(story.reason.sentence, width, "")
    if story.visits:
        yield "", False
        yield "What the visits of ksmd decided", True
        for line in visits(story):
            yield from wrapped(line, width, "  ")
    for title, places in (("Pages in the same frame", story.same_frame), ("Equal pages in other frames", story.same_content)):
        if places:
            yield "", False
            yield f"{title}: {len(places):,}{' or more' if story.more else ''}", True
            for each in places[:LISTED]:
                yield f"  {printable(each.source)}, {each.address:#x}", False
            if len(places) > LISTED:
                yield f"  and {len(places) - LISTED:,} more; --json lists them", False
    if story.reason.remedy:
        yield "", False
        yield from wrapped(f"What would change that: {story.reason.remedy}", width, "  ")


def visits(story: Story) -> Iterator[str]:
    """A line for each visit; neighbours that are the same in one."""
    before: str | None = None
    first = last = 0
    for visit in story.visits:
        other = ""
        if visit.other is not None:
            other = f" ({story.names.get(visit.other[0], 'another process')}, {visit.other[1]:#x})"
        text = ("another page came by: " if visit.by_other else "") + DECISIONS[visit.decision] + other
        if text != before:
            if before is not None:
                yield numbered(first, last, before)
            first, before = visit.number + 1, text
        last = visit.number + 1
    if before is not None:
        yield numbered(first, last, before)


def numbered(first: int, last: int, text: str) -> str:
    return f"pass {first}: {text}" if first == last else f"passes {first} to {last}: {text}"


def story_json(story: Story) -> dict[str, Any]:
    return {
        "source": story.place.source,
        "address": story.place.address,
        "region": None if story.region is None else region_json(story.region),
        "reason": story.reason.name,
        "sentence": story.reason.sentence,
        "remedy": story.reason.remedy,
        "visits": [
            {
                "pass": visit.number + 1,
                "decision": DECISIONS[visit.decision],
                "by_other": visit.by_other,
                **({} if visit.other is None else {"other": {"source": story.names.get(visit.other[0]), "address": visit.other[1]}}),
            }
            for visit in story.visits
        ],
        "same_frame": [place._asdict() for place in story.same_frame],
        "same_content": [place._asdict() for place in story.same_content],
        "more": story.more,
    }
