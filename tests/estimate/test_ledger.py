# SPDX-License-Identifier: GPL-2.0-only
"""The ledger: every page of a scan is in one line, in text as in JSON."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksm.estimate import report
from ksm.estimate.ledger import differences, make_ledger
from ksm.estimate.scan import Scan
from ksm.sources.blocks import fault_huge

from .test_report import pages
from .test_scan import PAGE, Changing, page, run, saved, write_image

NAMES = {
    "Freed": "freed", "zero pages": "zero", "duplicates within": "within", "duplicates across": "across", "Kept": "kept",
    "merged": "merged", "unshared": "unshared", "skipped": "skipped", "volatile": "volatile",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


numbers = st.lists(st.integers(0, 9), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(numbers, min_size=1, max_size=3), st.integers(1, 8),
       st.sampled_from(["", "use_zero_pages", "2011", "6.1", "7.3", "uncounted"]))
def test_every_page_is_in_one_line(folder, images, passes, variant):
    """Text and JSON have the same, and it is what a count says that knows nothing of KSM."""
    paths = [write_image(folder / f"image{place}", image) for place, image in enumerate(images)]
    zero_pages = variant in ("use_zero_pages", "uncounted")
    options = {"settings": {"use_zero_pages": "1"}} if zero_pages else {}
    options["era"] = {"2011": "2.6.38", "6.1": "6.1", "7.3": "7.3", "uncounted": "6.1"}.get(variant, "6.12")
    result = run(paths, passes=passes, **options)
    ledger = report.as_json(result)["ledger"]
    assert ledger["pages"] == ledger["freed"] + ledger["kept"] == sum(map(len, images))
    assert ledger["freed"] == ledger["zero"] + ledger["split"] + ledger["within"] + ledger["across"] == result.savings.pages
    assert ledger["kept"] == ledger["merged"] + ledger["unshared"] + ledger["skipped"] + ledger["volatile"]
    for text, name in NAMES.items():
        if name != "skipped" or ledger[name]:
            assert pages(result, text) == ledger[name]
    counts = Counter(number for image in images for number in image)
    if passes == 1:
        assert (ledger["freed"], ledger["volatile"]) == (0, ledger["pages"])
    else:
        unique = sum(count == 1 and not (zero_pages and number == 0) for number, count in counts.items())
        assert (ledger["unshared"] + ledger["skipped"], ledger["volatile"]) == (unique, 0)
        assert ledger["freed"] == sum(map(saved, counts.values())) + (zero_pages and counts[0] > 0)


class Huge(Changing):
    """Two huge pages, of which only the first parts are no zeros, and equal."""

    def attach(self, machine):
        process = self.spawn(machine)
        self.addr = process.mmap(1024 * PAGE, addr=1 << 30)
        fault_huge(process, [(self.addr, self.addr + 1024 * PAGE)], [(self.addr, self.addr + 1000 * PAGE)])
        self.refresh(0)

    def refresh(self, number):
        for place in (0, 512):
            self.process.update(self.addr + place * PAGE, page(1))

    def ranges(self):
        return [(self.addr, 1024 * PAGE)]


def test_zeros_that_no_counter_of_ksm_has():
    with Scan([Huge()], exact=True) as running:
        result = running.run(passes=3, interval=0)
    ledger = report.as_json(result)["ledger"]
    assert (ledger["pages"], ledger["split"], ledger["zero"], ledger["within"], ledger["kept"]) == (1000, 998, 0, 1, 1)
    assert pages(result, "Freed") == result.savings.pages == result.savings.zero + 1 == 999
    assert pages(result, "zeros of huge pages") == 998
    [line] = [note for note in report.all_notes(result) if "freed" in note]
    assert line == "pages_sharing and ksm_zero_pages are 1, and not the 999 freed: no counter has the 998 zeros of split huge pages"


def test_the_ledger_tells_both_reasons_why_counters_differ():
    slabs = {"ksm_rmap_item": 2, "ksm_stable_node": 1, "ksm_mm_slot": 1}
    tally = SimpleNamespace(zero=0, split=10, within=1, across=0, merged=1, unshared=0, skipped=0, volatile=0)
    ledger = make_ledger("6.12", pages=12, zeros=0, slabs=slabs, tally=tally)
    counters = {"pages_shared": 1, "pages_sharing": 2, "pages_unshared": 0, "pages_volatile": 0}
    [line] = differences(ledger, counters, 0)
    assert line.endswith("not the 11 freed: no counter has the 10 zeros of split huge pages, and KSM counts mappings")
    assert differences(ledger, {**counters, "general_profit": 2 * PAGE - 128}, 0)[1:] == [
        "general_profit and the profit of each source are made from what KSM counts"
    ]


def test_pages_that_have_just_become_zero_pages(folder):
    """KSM forgets their rmap_items when it comes by again, and counts them as volatile until then. They were freed."""
    path = write_image(folder / "zeros", [0] * 100 + [1, 1, 2])
    result = run([path], passes=2, settings={"use_zero_pages": "1"})
    assert (result.ledger.zero, result.ledger.within, result.ledger.volatile) == (100, 1, 0)
    assert (result.ksm["ksm_zero_pages"], result.ksm["pages_sharing"]) == (100, 1)
    if result.ksm["pages_volatile"]:
        assert any("that have become zero pages" in line for line in differences(result.ledger, result.ksm, 0))


def test_zero_pages_that_the_era_does_not_count(folder):
    path = write_image(folder / "uncounted", [0] * 100 + [1, 1, 2])
    result = run([path], era="6.1", settings={"use_zero_pages": "1"})
    line = "pages_sharing is 1, and not the 101 freed: KSM does not count what became the zero page"
    assert line in differences(result.ledger, result.ksm, 0)
    assert differences(run([path], era="6.1").ledger, run([path], era="6.1").ksm, 0) == []


def test_where_the_kernel_shows_something_else(folder):
    """pages_volatile has what smart_scan skipped; a line says so. Where nothing differs, there is no line."""
    path = write_image(folder / "skipped", [1, 1, *range(2, 12)])
    notes = report.all_notes(run([path], passes=8))
    shown = "the kernel would show pages_shared=1, pages_sharing=1, pages_unshared=0, pages_volatile=10, ksm_zero_pages=0"
    assert notes[1:3] == [shown, "pages_volatile also counts the 10 skipped"]
    assert differences(run([path]).ledger, run([path]).ksm, 0) == []


def test_what_changes_is_not_skipped_for_lack_of_an_equal(folder):
    """smart_scan skips pages of live memory that change in every pass, too: the report does not say that all were compared."""

    class Unique(Changing):
        def refresh(self, number):
            self.process.update(self.addr, b"".join(page(1000 * number + place) for place in range(1, 41)))

    with Scan([Unique()]) as running:
        result = running.run(passes=6, interval=0)
    assert (result.ledger.freed, result.ledger.unshared, result.ledger.skipped + result.ledger.volatile) == (0, 0, 40)
    assert report.answer(result).startswith("KSM found nothing to free in 6 passes")


@pytest.mark.parametrize("era, stable_node", [("6.12", 64), ("6.1", 64), ("2.6.38", 40)])
def test_sizes_of_an_eras_structures(folder, era, stable_node):
    path = write_image(folder / "sizes", [0, 0, 0, 1, 1, 2, 3])
    ledger = run([path, path], era=era).ledger
    assert (ledger.rmap_items, ledger.stable_nodes, ledger.mm_slots) == (14, 4, 2)
    assert ledger.metadata == 14 * 64 + 4 * stable_node + 2 * 48
    assert ledger.profit == 10 * PAGE - ledger.metadata


def test_chains_have_a_stable_node_of_their_own(folder):
    path = write_image(folder / "chain", [5] * 8)
    result = run([path], settings={"max_page_sharing": "2"})
    assert result.ledger.stable_nodes == result.ksm["stable_node_dups"] + result.ksm["stable_node_chains"] == 5


def test_a_ledger_that_does_not_add_up_is_refused():
    tally = SimpleNamespace(zero=0, split=0, within=1, across=0, merged=1, unshared=9, skipped=0, volatile=0)
    slabs = {"ksm_rmap_item": 11, "ksm_stable_node": 1, "ksm_mm_slot": 1}
    assert make_ledger("6.12", pages=11, zeros=0, tally=tally, slabs=slabs).kept == 10
    with pytest.raises(AssertionError, match="pages are missing"):
        make_ledger("6.12", pages=10, zeros=0, tally=tally, slabs=slabs)
