# SPDX-License-Identifier: GPL-2.0-only
"""What counters mean: each rule with counters that it holds of, and with some that it does not."""

import pytest

import ksm
from ksm.estimate.counters import Counters, version_of
from ksm.estimate.doctor import lines, of_counters
from ksm.estimate.impossible import RULES

PAGE = ksm.PAGE_SIZE
KNOBS = {"run": 1, "pages_to_scan": 100, "sleep_millisecs": 20, "full_scans": 9, "max_page_sharing": 256, "merge_across_nodes": 1,
         "use_zero_pages": 0, "advisor_mode": "none", "stable_node_chains": 0, "stable_node_dups": 0}
# A system of which no rule holds.
WELL = {**KNOBS, "pages_shared": 1000, "pages_sharing": 9000, "pages_unshared": 2000, "pages_volatile": 500, "ksm_zero_pages": 10,
        "thp_split_page": 0}
NOTHING = {name: 0 for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages")}
ADVISED = {"advisor_mode": "none [scan-time]", "advisor_max_cpu": 70, "advisor_min_pages_to_scan": 500,
           "advisor_max_pages_to_scan": 30000, "advisor_target_scan_time": 200}
WRAPPED = (1 << 64) - 1


def stat(items, merging, zero=0, **more):
    return {"ksm_rmap_items": items, "ksm_merging_pages": merging, "ksm_zero_pages": zero, **more}


def case(counters=(), processes=None, kernel="6.12.117"):
    return {**WELL, **dict(counters)}, processes or {}, kernel


# Of each rule: cases that it holds of, and cases that are near and it does not hold of.
CASES = {
    "off": ([case({**NOTHING, "run": 0})], [case({"run": 0}), case({**NOTHING, "run": 2}), ({"pages_shared": 0}, {}, "6.12")]),
    "stopped-with-merged-pages": ([case({"run": 0}), case({**NOTHING, "run": 0, "ksm_zero_pages": 1})],
        [case(), case({**NOTHING, "run": 0}), case({"run": 2})]),
    "unmerged": ([case({**NOTHING, "run": 2})], [case({"run": 2}), case({**NOTHING, "run": 0})]),
    "unmerging": ([case({"run": 2})], [case({**NOTHING, "run": 2}), case()]),
    "going-offline": ([case({"run": 5}), case({"run": 4})], [case()]),
    "nothing-registered": ([case(NOTHING)],
        [case({**NOTHING, "pages_volatile": 1}), case({**NOTHING, "run": 0}), case(NOTHING, {"1 a": {"ksm_mergeable": "yes"}})]),
    "nothing-eligible": ([case(NOTHING, {"1 a": {"ksm_merge_any": "yes"}})],
        [case(NOTHING, {"1 a": {"ksm_merge_any": "no"}}), case({}, {"1 a": {"ksm_merge_any": "yes"}})]),
    "no-pages-to-scan": ([case({"pages_to_scan": 0})],
        [case(), case({**ADVISED, "pages_to_scan": 0}), case({"pages_to_scan": 0, "run": 0})]),
    "no-sleep": ([case({"sleep_millisecs": 0})], [case({"sleep_millisecs": 1}), case({**NOTHING, "sleep_millisecs": 0})]),
    "not-settled": ([case({"full_scans": 2}), case({"full_scans": 0})],
        [case({"full_scans": 3}), case({"full_scans": 2, "run": 0}), case({**NOTHING, "full_scans": 0})]),
    "slow-pass": ([case({"pages_unshared": 20_000_000, "pages_sharing": 5_000_000})],
        [case({"pages_unshared": 17_000}), case({"pages_unshared": 20_000_000, "pages_to_scan": 5000})]),
    "only-zeros": ([case({"ksm_zero_pages": 90_000})],
        [case({"ksm_zero_pages": 80_000}), case({"ksm_zero_pages": 90_000}, kernel="6.5"), case(NOTHING)]),
    "negative-profit": ([case({"pages_volatile": 700_000})], [case({"pages_volatile": 500_000}), case(NOTHING)]),
    "mostly-unshared": ([case({"pages_unshared": 40_000})], [case({"pages_unshared": 36_000}), case({"pages_unshared": 700_000})]),
    "over-half-volatile": ([case({"pages_volatile": 12_001})], [case({"pages_volatile": 12_000}), case(NOTHING)]),
    "forks-count-as-volatile": ([case({"pages_volatile": 12_001})], [case({"pages_volatile": 12_000}), case(NOTHING)]),
    "chains-carry-most": ([case({"stable_node_chains": 3, "stable_node_dups": 501})],
        [case({"stable_node_chains": 3, "stable_node_dups": 500}), case(NOTHING)]),
    "empty-chains": ([case({"stable_node_chains": 11})],
        [case(), case({"stable_node_chains": 11, "stable_node_dups": 1}), ({"stable_node_chains": 11}, {}, "6.12")]),
    "advisor-cannot-reach-target": (
        [case({**ADVISED, "advisor_max_pages_to_scan": 1, "advisor_min_pages_to_scan": 1}), case({**ADVISED, "sleep_millisecs": 300_000})],
        [case(ADVISED), case({"advisor_max_pages_to_scan": 1})]),
    "advisor-has-no-cpu": ([case({**ADVISED, "pages_unshared": 30_000_000, "pages_sharing": 9_000_000})],
        [case(ADVISED), case({**ADVISED, "pages_unshared": 20_000_000, "pages_sharing": 7_000_000})]),
    "advisor-least-over-most": ([case({**ADVISED, "advisor_min_pages_to_scan": 30_001})],
        [case({**ADVISED, "advisor_min_pages_to_scan": 30_000}), case({"advisor_min_pages_to_scan": 30_001})]),
    "advisor-is-off": ([case({"advisor_target_scan_time": 100})],
        [case({"advisor_target_scan_time": 200}), case({**ADVISED, "advisor_target_scan_time": 100})]),
    "advisor-sets-pages-to-scan": ([case(ADVISED)], [case()]),
    "nodes-apart": ([case({"merge_across_nodes": 0})], [case(), case({**NOTHING, "merge_across_nodes": 0})]),
    "zero-pages-not-counted": ([case({"use_zero_pages": 1}, kernel="6.5")],
        [case({"use_zero_pages": 1}, kernel="6.6"), case(kernel="6.1")]),
    "zeros-of-split-huge-pages": ([case({"thp_split_page": 1}), ({"pages_shared": 1}, {}, "6.12")],
        [case({"thp_split_page": 0}), case({"thp_split_page": 1}, kernel="6.11"), case({**NOTHING, "thp_split_page": 1})]),
    "process-costs-more": ([case({}, {"1 a": stat(65, 1)})], [case({}, {"1 a": stat(64, 1)}), case({}, {"1 a": stat(65, 0, 2)})]),
    "zero-pages-below-zero": ([case({"ksm_zero_pages": -1}), case({"ksm_zero_pages": WRAPPED}), case({}, {"1 a": stat(1, 1, -3)})],
        [case({"ksm_zero_pages": 0}), case({"pages_volatile": -1})]),
    "counters-below-zero": ([case({"pages_sharing": WRAPPED}), case({"cow_ksm": -1})],
        [case({"ksm_zero_pages": -1}), case({"general_profit": -1})]),
    "sharing-without-shared": ([case({"pages_shared": 0})], [case(NOTHING), ({"pages_sharing": 5}, {}, "6.12")]),
    "dups-without-chains": ([case({"stable_node_dups": 2})],
        [case({"stable_node_dups": 2, "stable_node_chains": 1}), ({"stable_node_dups": 2}, {}, "6.12")]),
    "unknown-run": ([case({"run": 3}), case({"run": 8}), case({"run": 7})], [case({"run": 6}), case({"run": 4}), case()]),
    "max-page-sharing-below-two": ([case({"max_page_sharing": 1}), case({"max_page_sharing": 0})], [case({"max_page_sharing": 2})]),
    "forks-over-the-limit": ([case({"max_page_sharing": 9})], [case({"max_page_sharing": 10}), case(NOTHING)]),
    "fork-copies-counts": ([case({}, {"1 a": stat(10_000, 8000), "2 b": stat(10_000, 8000)})],
        [case({}, {"1 a": stat(10_000, 8000), "2 b": stat(5000, 2000)}), ({}, {"1 a": stat(5, 5)}, "6.1")]),
}  # fmt: skip


def names(counters, processes, kernel):
    return {finding.name for finding in ksm.doctor(counters, processes, kernel=kernel).findings}


def test_every_rule_has_cases():
    assert [rule.name for rule in RULES] == list(CASES)


def test_of_a_system_that_is_well_no_rule_holds():
    assert names(*case()) == set()
    assert names({}, {}, "6.12") == set()


@pytest.mark.parametrize("name", CASES)
def test_rule(name):
    """It holds, with a sentence and an advice of one line each; it does not hold of what is near."""
    holds, does_not = CASES[name]
    for one in holds:
        [finding] = [each for each in ksm.doctor(one[0], one[1], kernel=one[2]).findings if each.name == name]
        assert finding.level in ("kernel bug", "problem", "remark")
        for text in finding[2:]:
            assert text and text.isprintable() and not text.endswith(".")
    for one in does_not:
        assert name not in names(*one), one


def test_counters_of_a_large_node():
    """The counters of a node in public reports: 60.6 % volatile, although nothing says so, and the profit by 6.12's formula."""
    counters = {"pages_shared": 129547, "pages_sharing": 5119146, "pages_unshared": 1760924, "pages_volatile": 10761341}
    found = ksm.doctor(counters, kernel="6.12")
    assert found.profit == 19_830_680_704
    assert round(100 * found.volatile, 1) == 60.6
    assert next(finding for finding in found.findings if finding.name == "over-half-volatile").sentence.startswith("60.6 %")
    assert found.formulas[2] == ("general_profit", "5,119,146 x 4,096 - 17,770,958 rmap_items x 64", 19_830_680_704)


def test_volatile_follows_from_the_profit_and_from_processes():
    """Where pages_volatile was not read, general_profit or the processes' rmap_items say what it is."""
    shown = {"pages_shared": 129547, "pages_sharing": 5119146, "pages_unshared": 1760924}
    for more, processes in (({"general_profit": 19_830_680_704}, {}), ({}, {"a": stat(17_770_000, 0), "b": stat(958, 0)})):
        found = ksm.doctor({**shown, **more}, processes, kernel="6.12")
        assert round(100 * found.volatile, 1) == 60.6
        assert "was not read" in next(finding for finding in found.findings if finding.name == "over-half-volatile").sentence


NONE = "general_profit, by 6.4's formula: this kernel has none"


@pytest.mark.parametrize(("kernel", "saved", "name"), [
    ("6.12", 30, "general_profit"), ("6.6", 30, "general_profit"), ("6.5", 10, "general_profit"), ("6.3.9", 10, NONE)])  # fmt: skip
def test_formulas_of_versions(kernel, saved, name):
    """Zero pages are in the profit since 6.6, and there is a general_profit since 6.4."""
    found = ksm.doctor({"pages_shared": 2, "pages_sharing": 10, "pages_volatile": 3, "ksm_zero_pages": 20}, kernel=kernel)
    assert (found.saved, found.profit) == (saved * PAGE, saved * PAGE - 15 * 64)
    assert [each[0] for each in found.formulas] == ["saved", "metadata", name]
    assert found.metadata == (15 + 2) * 64


@pytest.mark.parametrize(("kernel", "size"), [
    ("6.12", 64), ("6.1", 64), ("4.13", 64), ("4.12", 48), ("3.9", 48), ("3.8", 40), ("2.6.38", 40), ("1.0", 40)])  # fmt: skip
def test_a_stable_node_has_grown(kernel, size):
    """With merge_across_nodes in 3.9, and with chains in 4.13."""
    found = ksm.doctor({"pages_shared": 2, "pages_sharing": 10, "pages_unshared": 0, "pages_volatile": 3}, kernel=kernel)
    assert found.metadata == 15 * 64 + 2 * size
    assert f"2 stable nodes x {size}" in found.formulas[1][1]


@pytest.mark.parametrize(("kernel", "told"), [
    ("6.6", ("6.10", "6.18")), ("6.10", ("6.18",)), ("6.12.5", ("6.18",)), ("6.12.117", ()), ("6.18", ())])  # fmt: skip
def test_the_version_that_mended_zero_pages(kernel, told):
    [finding] = ksm.doctor({"ksm_zero_pages": WRAPPED}, kernel=kernel).findings
    assert finding.level == "kernel bug"
    assert f"{WRAPPED}, which is -1" in finding.sentence
    assert {version for version in ("6.10", "6.18") if f"before Linux {version} " in finding.sentence} == set(told)
    assert ksm.doctor({"ksm_zero_pages": WRAPPED, "pages_sharing": 3, "pages_shared": 1}, kernel=kernel).saved == 3 * PAGE


def test_how_long_a_pass_takes():
    """100 pages each 20 ms are 5,000 a second, and some time for each visit; the advisor keeps to its target."""
    assert ksm.doctor({**KNOBS, **NOTHING, "pages_volatile": 1_048_576}).pass_seconds == pytest.approx(215, abs=1)
    assert ksm.doctor({**KNOBS, **NOTHING, **ADVISED, "pages_volatile": 1_048_576}).pass_seconds == pytest.approx(200, rel=0.05)
    assert ksm.doctor({"pages_volatile": 5}).pass_seconds is None
    sentence = next(each.sentence for each in ksm.doctor({**WELL, "full_scans": 1}, kernel="6.12").findings if each.name == "not-settled")
    assert "2.6 s at these knobs (pages_to_scan 100, sleep_millisecs 20)" in sentence


def test_pages_to_scan_that_is_proposed_does_what_is_said():
    counters = {**WELL, "pages_unshared": 20_000_000, "pages_sharing": 5_000_000}
    sentence = next(each.sentence for each in ksm.doctor(counters, kernel="6.12").findings if each.name == "slow-pass")
    proposed = int(sentence.partition("pages_to_scan ")[2].partition(" would")[0].replace(",", "").split()[-1])
    assert ksm.doctor({**counters, "pages_to_scan": proposed}, kernel="6.12").pass_seconds == pytest.approx(200, rel=0.01)


def content(number):
    return number.to_bytes(8, "little") * (PAGE // 8)


def test_the_counters_of_7_3():
    with ksm.Machine("16M", era="7.3") as machine:
        process = machine.spawn()
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
        process.write(process.mmap(8 * PAGE), content(1) * 8)
        machine.ksm.scan(3)
        found = ksm.doctor(machine.ksm.attributes(), {"1 a": process.ksm_stat()}, kernel="7.3.4+deb13-cloud-amd64")
        assert found.kernel == (7, 3, 4)
        assert found.profit == machine.ksm.general_profit == 7 * PAGE - 8 * 64


def test_empty_chains_are_harmless():
    """11 contents in 8 pages each, at most 2 to a frame. When the process has gone, its chains are all that is left."""
    with ksm.Machine("16M") as machine:
        machine.ksm.max_page_sharing = 2
        process = machine.spawn()
        start = process.mmap(88 * PAGE)
        process.write(start, b"".join(content(1 + number // 8) for number in range(88)))
        process.madvise(start, 88 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        full = ksm.doctor(machine.ksm.attributes(), kernel="6.12")
        assert full.counters["stable_node_chains"] == 11
        assert "chains-carry-most" in {each.name for each in full.findings}
        process.exit()
        machine.ksm.scan()
        counters = machine.ksm.attributes()
        assert {name: counters[name] for name in (*NOTHING, "stable_node_chains", "stable_node_dups")} == {
            **NOTHING, "stable_node_chains": 11, "stable_node_dups": 0}  # fmt: skip
        found = ksm.doctor(counters, kernel="6.12").findings
        assert [each.name for each in found] == ["off", "empty-chains"]
        assert found[1].level == "remark" and "harmless" in found[1].sentence
        # What the advice says.
        machine.ksm.max_page_sharing = 2
        assert machine.ksm.stable_node_chains == 11
        machine.ksm.max_page_sharing = 3
        assert machine.ksm.stable_node_chains == 0


def test_pages_of_a_fork_count_as_volatile():
    """What the remark says: pages hold still, a fork shares them, and each further process has an rmap_item that is in no tree."""
    with ksm.Machine("16M") as machine:
        machine.ksm.smart_scan = 0
        parent = machine.spawn()
        start = parent.mmap(20 * PAGE)
        parent.write(start, b"".join(content(1 + number) for number in range(20)))
        parent.madvise(start, 20 * PAGE, ksm.MADV_MERGEABLE)
        children = [parent.fork() for _ in range(2)]
        machine.ksm.scan(5)
        found = ksm.doctor(machine.ksm.attributes(), kernel="6.12")
        assert (machine.ksm.pages_unshared, machine.ksm.pages_volatile) == (20, 40)
        assert found.metadata == 60 * 64
        assert {"forks-count-as-volatile", "over-half-volatile"} <= {each.name for each in found.findings}
        assert len(children) == 2


def test_a_fork_of_merged_pages_goes_over_the_limit():
    with ksm.Machine("16M") as machine:
        machine.ksm.max_page_sharing = 2
        parent = machine.spawn()
        start = parent.mmap(2 * PAGE)
        parent.write(start, content(7) * 2)
        parent.madvise(start, 2 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        children = [parent.fork() for _ in range(2)]
        machine.ksm.scan(3)
        assert "forks-over-the-limit" in {each.name for each in ksm.doctor(machine.ksm.attributes(), kernel="6.12").findings}
        assert len(children) == 2


def test_formulas_are_those_of_the_port():
    """Profits and metadata of a machine, with its zero pages, and of its processes."""
    with ksm.Machine("16M") as machine:
        machine.ksm.use_zero_pages = 1
        processes = [machine.spawn() for _ in range(3)]
        for process in processes:
            start = process.mmap(30 * PAGE)
            process.write(start, bytes(10 * PAGE) + content(7) * 10 + b"".join(content(process.pid * 100 + number) for number in range(10)))
            process.madvise(start, 30 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(4)
        found = ksm.doctor(machine.ksm.attributes(), {str(each.pid): each.ksm_stat() for each in processes}, kernel="6.12")
        assert machine.ksm.ksm_zero_pages == 30
        assert found.profit == machine.ksm.general_profit
        counters = Counters(machine.ksm.attributes(), {"a": processes[0].ksm_stat()}, version_of("6.12"))
        assert counters.processes[0].saved * PAGE - counters.processes[0].items * 64 == processes[0].ksm_stat()["ksm_process_profit"]


@pytest.mark.parametrize(("arguments", "error"), [
    (({"run": "x"},), ValueError), (({"run": 1 << 64},), ValueError), (({"run": -1 << 64},), ValueError), (({"run": 1.5},), TypeError),
    (({"run": None},), TypeError), (({"run": "9" * 5000},), ValueError), (({"run": "\u0661"},), ValueError),
    (({"advisor_mode": 7},), ValueError), (({}, {"a": {"ksm_rmap_items": "-"}}), ValueError)])  # fmt: skip
def test_what_is_no_counter(arguments, error):
    with pytest.raises(error) as raised:
        ksm.doctor(*arguments)
    assert len(str(raised.value)) < 100


@pytest.mark.parametrize("keywords", [
    {"kernel": "x"}, {"kernel": ""}, {"kernel": "6"}, {"kernel": "6." + "1" * 5000}, {"page_size": 0}, {"page_size": 4097}])  # fmt: skip
def test_what_is_no_version_or_size(keywords):
    with pytest.raises(ValueError):
        ksm.doctor({}, **keywords)


def test_versions():
    assert version_of("6.12.117-amd64") == (6, 12, 117)
    assert version_of("2.6.38") == (2, 6, 38)
    assert version_of("6.1") < version_of("6.1.5") < version_of("6.10")


def test_other_names_are_passed_over():
    assert ksm.doctor({"nr_free_pages": "x", "run": "1"}).counters == {"run": 1}


def test_lines_fit_the_terminal():
    for width in (40, 60, 80, 100):
        counters = Counters(*case({"full_scans": 0, "stable_node_chains": 5}, {"1 \x1b[31m": stat(6500, 10)})[:2], version_of("6.12"))
        text = [line for line, _ in lines(counters, of_counters(counters), width)]
        assert all(len(line) < width and line.isprintable() for line in text)
        assert "6,500" in "\n".join(text)
