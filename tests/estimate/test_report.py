# SPDX-License-Identifier: GPL-2.0-only
"""The report of a scan, line by line."""

from ksm.estimate import report

from .test_scan import run, write_image


def pages(result, name):
    [line] = [text for text, _ in report.breakdown(result) if text.strip().startswith(name)]
    return int(line[42:].split()[0].replace(",", ""))


def test_pages_that_smart_scan_passes_over_are_not_volatile(tmp_path):
    """KSM counts skipped pages as volatile. But they were compared with all others, often, and no page is equal."""
    result = run([write_image(tmp_path / "image", [1, 1, *range(2, 12)])], passes=8)
    assert (result.ksm["pages_volatile"], result.skipped) == (10, 10)
    assert (pages(result, "Freed"), pages(result, "Kept")) == (1, 11)
    assert (pages(result, "merged"), pages(result, "unshared"), pages(result, "volatile")) == (1, 10, 0)


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
