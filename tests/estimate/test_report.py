# SPDX-License-Identifier: GPL-2.0-only
"""The report of a scan, line by line."""

import re

import pytest

from ksm.estimate import report
from ksm.estimate.already import Already
from ksm.estimate.doubt import Doubt

from .test_scan import run, write_image


def pages(result, name):
    [line] = [text for text, _ in report.breakdown(result) if text.strip().startswith(name)]
    return int(line[42:].split()[0].replace(",", ""))


def test_pages_that_smart_scan_passes_over_are_not_volatile(tmp_path):
    """KSM counts skipped pages as volatile. But they were compared with all others, often: they have a line of their own."""
    result = run([write_image(tmp_path / "image", [1, 1, *range(2, 12)])], passes=8)
    assert (result.ksm["pages_volatile"], result.skipped) == (10, 10)
    assert (pages(result, "Freed"), pages(result, "Kept")) == (1, 11)
    assert [pages(result, name) for name in ("merged", "unshared", "skipped", "volatile")] == [1, 0, 10, 0]


def test_tables_in_narrow_terminals(tmp_path):
    """Above 74 columns nothing changes. Below, what a row is takes several lines, and the table of sources has fewer columns."""
    image = [0] * 3 + [1, 1, *range(2, 2002)]  # 2,000 have no equal
    result = run([write_image(tmp_path / ("name" * 20), image)], settings={"use_zero_pages": "1"})
    whole = [text for text, _ in report.breakdown(result, 74)]
    assert whole == [text for text, _ in report.breakdown(result, 200)]
    assert max(map(len, whole)) == 74
    for width in range(40, 80):
        lines = [text for text, _ in (*report.breakdown(result, width), *report.sources_table(result, width))]
        assert max(map(len, lines)) <= width
        assert sum("2,000" in line.split() for line in lines) == 1
        assert "profit" in next(line for line in lines if line.startswith("Source")).split()
    narrow = [text.split() for text, _ in report.sources_table(result, 40)]
    assert narrow[0] == ["Source", "MiB", "merged", "zero", "profit"]
    assert narrow[2] == ["…" + "name" * 4, "7.8", "0.0", "0.0", "-0.1"]
    assert next(report.sources_table(result, 30))[0].split() == ["Source", "MiB", "merged", "profit"]
    assert next(report.sources_table(result, 20))[0].split() == ["Source", "profit"]
    lines = [text for text, _ in report.breakdown(result, 40)]
    place = lines.index("  duplicates within")
    assert lines[place + 1].split() == ["one", "source", "1", "0.0", "0.0"]


def many(folder, count):
    paths = [write_image(folder / f"image{number:04}", [1] * (2 + number % 7)) for number in range(count)]
    return run(paths)


def test_many_sources_are_a_page(tmp_path):
    """The table shows those with the most profit, and says how many more there are. JSON has all, in the order of their names."""
    result = many(tmp_path, 100)
    lines = [text for text, _ in report.lines(result, 80)]
    assert len(lines) < 60
    assert sum("image0" in line for line in lines) == report.SHOWN
    profits = [source.ksm_stat["ksm_process_profit"] for source in report.ordered(result)]
    assert profits == sorted(profits, reverse=True)
    assert sum(line.startswith("and 80 more, with ") and line.endswith(" MiB; --json lists all") for line in lines) == 1
    names = [source["name"] for source in report.as_json(result)["sources"]]
    assert names == sorted(names)
    assert len(names) == 100
    few = many(tmp_path, report.SHOWN)
    assert not any("more" in text for text, _ in report.sources_table(few, 80))
    assert [source.name for source in report.ordered(few)] == names[: report.SHOWN]


def test_notes_on_many_sources_are_a_few_lines(tmp_path):
    """Equal ones are one line, and of others there are a few. JSON has all."""
    result = many(tmp_path, 3)
    notes = [(f"source {number}", "not whole") for number in range(50)]
    alike = result._replace(source_notes=notes)
    assert "50 sources: not whole" in report.shown_notes(alike)
    assert len(report.shown_notes(alike)) == len(report.shown_notes(result)) + 1
    others = result._replace(source_notes=[(name, f"left out {name}") for name, _ in notes])
    assert f"{50 - report.SHOWN_NOTES} more notes on sources; --json lists all" in report.shown_notes(others)
    assert "source 0: left out source 0" in report.shown_notes(others)
    assert sum("left out source" in note for note in report.as_json(others)["notes"]) == 50
    assert report.shown_notes(result._replace(source_notes=notes[:2]))[-2:] == ["source 0: not whole", "source 1: not whole"]


def test_pages_that_were_passed_over_are_no_reason_to_doubt(tmp_path):
    """All pages were compared, so the report says for sure that there is nothing to free."""
    result = run([write_image(tmp_path / "image", range(1, 13))], passes=8)
    assert (result.settled, result.skipped) == (True, 12)
    assert report.answer(result) == "KSM would free nothing: of 48.0 KiB, no two pages are equal."


def test_names_are_shortened_where_they_must_be():
    assert report.shortened("n" * 28, 28) == "n" * 28
    assert report.shortened("m" + "n" * 28, 28) == "…" + "n" * 27
    assert report.shortened("名" * 14, 28) == "名" * 14
    assert report.shortened("n" + "名" * 14, 28) == "…" + "名" * 13
    assert report.shortened("", 28) == ""


@pytest.mark.parametrize(
    "already, fewer, line, rows",
    [
        (Already(0, 0), 0, "KSM would free 12.0 KiB of 40.0 KiB (30.0 %), and need", {}),
        (
            Already(0, 0), 2,
            "KSM would free between 4.0 KiB and 12.0 KiB of 40.0 KiB (10.0 to 30.0 %), and need",
            {"Freed on top, at least": 1, "Freed on top, at most": 3},
        ),
        (
            Already(2, 2), 0,
            "8.0 KiB are saved already; KSM would free 4.0 KiB of 40.0 KiB (10.0 %) more, and need",
            {"Freed already": 2, "Freed on top": 1},
        ),
        (
            Already(3, 3), 5,
            "12.0 KiB are saved already; KSM would free nothing more of 40.0 KiB.",
            {"Freed already": 3, "Freed on top": 0},
        ),
        (
            Already(1, 2), 1,
            "4.0 KiB to 8.0 KiB are saved already; KSM would free between 4.0 KiB and 8.0 KiB of 40.0 KiB (10.0 to 20.0 %) more, and need",
            {"Freed already, at least": 1, "Freed on top, at least": 1, "Freed on top, at most": 2},
        ),
    ],
)  # fmt: skip
def test_what_is_saved_already_and_what_is_in_doubt(tmp_path, already, fewer, line, rows):
    """What is freed already, and on top of that at most, are all that is freed. Text and JSON have the same."""
    result = run([write_image(tmp_path / "image", [1] * 4 + [2, 3, 4, 5, 6, 7])])
    assert (result.already, result.doubts, result.ledger.freed) == (Already(0, 0), [], 3)
    assert any(note.startswith("the kernel would show") for note in report.all_notes(result))
    result = result._replace(already=already, doubts=[Doubt(fewer, 0, "why")], ledger=result.ledger._replace(metadata=8192))
    assert report.answer(result).startswith(line)
    table = "\n".join(text for text, _ in report.breakdown(result))
    shown = {name: int(count) for name, count in re.findall(r"^(Freed.*?)  +(\d+)  ", table, re.M)}
    assert shown.pop("Freed") == 3
    assert shown == rows
    assert ("Profit: freed less metadata, at most" in table) is ("Freed on top, at least" in rows)
    assert any(note.startswith("but for these doubts, the kernel would show") for note in report.all_notes(result)) is (fewer > 0)
    json = report.as_json(result)
    assert json["already"] == already._asdict()
    assert already.least + json["freed"]["most"] == json["ledger"]["freed"] == 3
