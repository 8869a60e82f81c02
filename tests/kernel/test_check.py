# SPDX-License-Identifier: GPL-2.0-only
"""What may be in a workload and in an outcome, and how large they may be."""

import copy
import json

import pytest

from ksm.oracle import workload as runner
from ksm.oracle.check import MOST_PAGES, MOST_PROCESSES, MOST_VMAS, OPS, check_outcome, check_workload
from ksm.oracle.compare import first_difference
from ksm.oracle.recorded import outcome_of, pack
from ksm.oracle.replay import run_port
from ksm.oracle.seeds import generate
from ksm.oracle.workload import OracleError, kstrtouint


def vma(pages=2, name="v", **more):
    return {"name": name, "pages": pages, **more}


def workload(*steps, vmas=None, **more):
    vmas = [vma(contents=[[7, 2]])] if vmas is None else vmas
    return {"name": "w", "procs": [{"name": "a", "vmas": vmas}], "steps": list(steps), **more}


def step(op, **args):
    return {"op": op, "proc": "a", "vma": "v", **args}


def refusal(call, *arguments, **options):
    with pytest.raises(OracleError) as caught:
        call(*arguments, **options)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
    return str(caught.value)


# Types

WRONG = [None, True, -1, 1.5, "", "x", "\ud800", "a\nb", "\x1b[31m", "x" * 201, [], {}, [[]], [None] * 3, {"a": 1}, 1 << 70, 10**4000,
         "1" * 5001, [[1, 2, 3]], [[1, -1]], [["x", 1]], [1 << 48], float("inf"), float("nan"), json.loads("[" * 500 + "]" * 500)]


def kinds_of_steps():
    values = {"proc": "a", "vma": "v", "contents": [5], "advice": "dontneed", "prot": 3, "by": "frame", "node": 0, "pages": 2, "into": "w",
              "child": "b", "merge": 1, "arg3": 1, "file": "run", "value": 0, "ms": 1, "page": 0, "count": 1, "slot": 3, "mergeable": True,
              "passes": 1}
    for op, (must, may) in OPS.items():
        yield {"op": op, **{key: values[key] for key in sorted(must | may)}}


@pytest.mark.parametrize("good", list(kinds_of_steps()), ids=lambda step: step["op"])
def test_each_key_of_each_step_with_each_wrong_value(good):
    """The workload is refused in a line; or the value is possible after all, and the workload runs."""
    check_workload(workload(good))
    for key in good:
        for value in WRONG:
            changed = workload({**good, key: value}, swap=8)
            try:
                check_workload(changed)
                json.dumps(run_port(changed, pages=True, events=True), ensure_ascii=False).encode()
            except OracleError as error:
                assert str(error).isprintable() and len(str(error)) < 600


@pytest.mark.parametrize("path", [("name",), ("settings",), ("settings", "run"), ("nodes",), ("swap",), ("steps",), ("steps", 0),
                                  ("procs",), ("procs", 0), ("procs", 0, "name"), ("procs", 0, "vmas"), ("procs", 0, "vmas", 0),
                                  ("procs", 0, "vmas", 0, "name"),
                                  ("procs", 0, "vmas", 0, "pages"), ("procs", 0, "vmas", 0, "contents"), ("procs", 0, "vmas", 0, "slot"),
                                  ("procs", 0, "vmas", 0, "mergeable")], ids=str)
def test_each_place_of_a_workload_with_each_wrong_value(path):
    for value in WRONG:
        changed = copy.deepcopy(workload({"op": "scan"}, settings={"run": 0}))
        target = changed
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        try:
            run_port(changed)
        except OracleError as error:
            assert str(error).isprintable() and len(str(error)) < 600


@pytest.mark.parametrize("file", ["../../../../etc/passwd", "/etc/passwd", "..", "", "a/b", "a\0", "RUN", "run\n", "a" * 65, "\u0440un"])
def test_files_of_another_folder_are_not_written(file):
    """The kernel's side runs as root: a workload must not write to any other file."""
    assert "file cannot be" in refusal(check_workload, workload({"op": "sysfs", "file": file, "value": 1}))
    assert "file cannot be" in refusal(check_workload, workload(settings={file: 1}))


@pytest.mark.parametrize(("value", "number"), [
    (1, 1), ("1", 1), ("+1", 1), ("01", 1), (2, 2), ("0", 0), ("", None), ("x", None), ("1.5", None), (" 1", None), ("1 ", None),
    ("0x1", None), ("1_0", None), ("-1", None), (-1, None), (True, None), ("\u0661", None), ("1" * 65, None), ("1\n", None),
    (1 << 63, 1 << 63),
])
def test_the_number_that_the_kernel_sees(value, number):
    assert kstrtouint(value) == number


@pytest.mark.parametrize("value", ["x", "", "1.5", " 1", "0x1", "-1", -1, True, 3, "3", 1 << 40])
def test_run_with_what_the_kernel_refuses(value):
    """The outcome records EINVAL, and the scan goes on where it was."""
    records = run_port(workload({"op": "sysfs", "file": "run", "value": value}, {"op": "scan", "passes": 2}))["records"]
    assert records[0] == {"step": 0, "sysfs": "run", "value": value, "error": "EINVAL"}
    assert records[-1]["ksm"]["pages_sharing"] == 1


@pytest.mark.parametrize("value", ["1" * 5001, "1\0", "\n", "\u0661", 1 << 64, "\ud800"], ids=repr)
def test_what_is_not_written_to_a_file(value):
    assert "value cannot be" in refusal(check_workload, workload({"op": "sysfs", "file": "run", "value": value}))


def test_run_as_the_kernel_reads_it():
    records = run_port(workload({"op": "sysfs", "file": "run", "value": "+01"}, {"op": "sysfs", "file": "run", "value": "2"}))["records"]
    assert [record.get("op", record.get("sysfs")) for record in records] == ["batch", "run"]


# Sizes

def test_pages_at_a_time():
    full = vma(MOST_PAGES)
    check_workload(workload(vmas=[full]))
    assert refusal(check_workload, workload(vmas=[full, vma(1, "w")])) == (
        "process a: there are 65,537 pages, and 65,536 (256 MiB) are the most that may be at a time")
    more = step("mmap", pages=1)
    grow = step("mremap", pages=MOST_PAGES)
    fork = {"op": "fork", "proc": "a", "child": "b"}
    for steps in ([more], [step("munmap", count=1), more, more], [{"op": "sysfs", "file": "run", "value": 0}, {**more, "vma": "w"}]):
        assert refusal(check_workload, workload(*steps, vmas=[full])).startswith(f"step {len(steps) - 1}, mmap: there are 65,537 pages")
    assert "step 0, fork: there are 65,538 pages" in refusal(check_workload, workload(fork, vmas=[vma(MOST_PAGES // 2 + 1)]))
    assert "step 1, mremap: there are 65,538 pages" in refusal(check_workload, workload(fork, grow))
    assert "mremap: there are 262,144 pages" in refusal(check_workload, workload(step("mremap", pages=1 << 18)))


@pytest.mark.parametrize("steps", [
    [step("munmap"), step("mmap", pages=MOST_PAGES)], [step("munmap", page=5), step("mmap", pages=MOST_PAGES - 5)],
    [{"op": "exec", "proc": "a"}, step("mmap", pages=MOST_PAGES)],
    [step("mremap", pages=1), {"op": "fork", "proc": "a", "child": "b"}, {"op": "exit", "proc": "a"}, step("mmap", pages=1),
     {**step("mmap", pages=MOST_PAGES - 1), "proc": "b"}],
    [step("move", into="w"), step("munmap") | {"vma": "w"}, step("mmap", pages=MOST_PAGES)],
    [step("touch", proc="nobody"), step("munmap", vma="nothing"), {"op": "exit", "proc": "nobody"}],
], ids=str)
def test_what_is_gone_does_not_count(steps):
    check_workload(workload(*steps, vmas=[vma(MOST_PAGES)]))


@pytest.mark.parametrize("steps", [[step("mmap", pages=1)], [step("move", into="v") | {"vma": "u"}, step("mmap", pages=1) | {"vma": "t"}]],
                         ids=["mmap", "move"])
def test_what_has_lost_its_name_counts(steps):
    """With two VMAs of one name, the first one is still mapped."""
    assert "65,537 pages" in refusal(check_workload, workload(*steps, vmas=[vma(MOST_PAGES // 2), vma(MOST_PAGES // 2, "u")]))


def test_vmas_and_processes_at_a_time():
    assert "10,001 VMAs" in refusal(check_workload, workload(vmas=[vma(1, f"v{number}") for number in range(MOST_VMAS + 1)]))
    procs = [{"name": f"p{number}", "vmas": []} for number in range(MOST_PROCESSES + 1)]
    assert "process p1000: there are 1,001 processes" in refusal(check_workload, {"procs": procs, "steps": []})
    children = [{"op": "fork", "proc": "a", "child": f"c{number}"} for number in range(MOST_PROCESSES)]
    assert "step 999, fork: there are 1,001 processes" in refusal(check_workload, workload(*children, vmas=[]))
    both = [each for child in children for each in (child, {"op": "exit", "proc": child["child"]})]
    check_workload(workload(*both, vmas=[]))


@pytest.mark.parametrize("seed", [*range(0, 40, 3), *range(1000, 1020, 3)])
def test_random_workloads_are_far_from_the_limits(seed):
    generated = generate(seed, steps=300)
    check_workload({**generated, "procs": [*generated["procs"], {"name": "more", "vmas": [vma(MOST_PAGES * 3 // 4)]}]})


@pytest.mark.parametrize(("steps", "options"), [
    ([{"op": "scan", "passes": 1_000_000}], {}), ([{"op": "record"}] * 2000, {}), ([{"op": "scan", "passes": 9000}], {"pages": True}),
    ([{"op": "sysfs", "file": "run", "value": 3}] * 20_000, {}), ([step("munmap")] + [step("madvise", advice="dontneed")] * 20_000, {}),
], ids=["passes", "records", "pages", "files", "errors"])
def test_an_outcome_is_not_larger_than_it_may_be(monkeypatch, steps, options):
    monkeypatch.setattr(runner, "MOST_VALUES", 20_000)
    assert "the outcome has more than 20,000 values" in refusal(run_port, workload(*steps), **options)


def test_pages_that_a_vma_does_not_have():
    for each in (step("touch", page=3), step("migrate", page=1 << 18, node=0), step("move", page=3, into="w")):
        assert "there is no page" in refusal(run_port, workload(each))
    run_port(workload(step("touch", page=2)))


# Outcomes

OUTCOME = {"kernel": "6.12", "workload": workload({"op": "scan", "passes": 2})}
RECORDS = run_port(OUTCOME["workload"], pages=True, events=True)["records"]


@pytest.mark.parametrize("value", [None, 7, "x", {}, [7], [None], [[]], [{}], [{"ksm": {}}], [{"step": "x"}], [{"step": None}],
                                   [{"step": [1]}]], ids=str)
def test_what_are_no_records(value):
    refusal(check_outcome, {"records": value})
    refusal(outcome_of, {**OUTCOME, "records": value})
    check_outcome({"records": []})


@pytest.mark.parametrize("key", [*sorted(set().union(*RECORDS)), "sysfs", "error", "completed_scan", "more"])
def test_each_key_of_a_record_with_each_wrong_value(key):
    """The record is refused; or it can be compared with the port's, and a difference can be printed."""
    for value in WRONG:
        for inside in (value, {"a": value}, {"a": {"v": value}}, [value], [[value]]):
            records = copy.deepcopy(RECORDS)
            records[0][key] = inside
            try:
                check_outcome({"records": records})
                outcome_of({**OUTCOME, "records": pack(records)})
            except OracleError as error:
                assert str(error).isprintable() and len(str(error)) < 600
                continue
            found = first_difference({"records": records}, {"records": RECORDS})
            if found:
                text = found.report("w")
                assert all(line.isprintable() for line in text.split("\n"))
                assert max(map(len, text.split("\n"))) < 3000


@pytest.mark.parametrize("data", [{}, {"kernel": 7}, {"kernel": "x", "workload": 7}, {"kernel": "x", "workload": {}, "records": []},
                                  {**OUTCOME, "kernel": None, "records": []}], ids=str)
def test_what_is_no_recorded_outcome(data):
    refusal(outcome_of, data)


def test_a_process_and_a_vma_may_have_any_name():
    """Names that mean something in a record are allowed, too."""
    for name in ("ksm", "smaps", "advisor_mode", "step", "ksm_mergeable"):
        outcome = run_port({"procs": [{"name": name, "vmas": [vma(name=name)]}], "steps": [{"op": "scan"}]}, pages=True)
        changed = copy.deepcopy(outcome)
        changed["records"][0]["pages"][name][name] = ["k"]
        assert first_difference(changed, outcome).where.endswith("[0]")
