# SPDX-License-Identifier: GPL-2.0-only
"""ksm replay, ksm verify and the shrinker without a kernel: the outcome to compare with comes from a command or a file."""

import copy
import json
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import ksm
from ksm.cli import workloads
from ksm.cli.group import main
from ksm.host import json_file
from ksm.oracle import huge
from ksm.oracle.compare import first_difference, side_by_side
from ksm.oracle.generate import KINDS
from ksm.oracle.huge import wants_huge_pages
from ksm.oracle.kernel import wrong_machine
from ksm.oracle.replay import run_port
from ksm.oracle.seeds import generate
from ksm.oracle.shrink import sensible, shrink
from ksm.oracle.workload import OracleError

RECORDED = Path(__file__).parent / "recorded"
PAIR = {"name": "pair", "procs": [{"name": "a", "vmas": [{"name": "v", "pages": 2, "contents": [[7, 2]]}]}],
        "steps": [{"op": "scan", "passes": 2}]}


def invoke(*arguments, code=0, **options):
    result = CliRunner().invoke(main, [*map(str, arguments)], prog_name="ksm", catch_exceptions=False, **options)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "pair.json"
    path.write_text(json.dumps(PAIR))
    return path


def command(**changes):
    """A command that prints the port's outcome, changed in the last record."""
    code = ("import json, sys; from ksm.oracle.replay import run_port; outcome = run_port(json.load(sys.stdin), pages=True, events=True);"
            f"outcome['records'][-1]['ksm'].update({changes!r}); print(json.dumps(outcome))")
    home = str(Path(ksm.__file__).resolve().parents[1])
    return shlex.join(["env", f"PYTHONPATH={home}", sys.executable, "-c", code])


def test_replay_prints_what_every_pass_left_behind(pair):
    outcome = json.loads(invoke("replay", pair)[0])
    assert outcome["workload"] == "pair"
    assert outcome["kernel"].startswith("ksm ")
    assert [record["ksm"]["pages_sharing"] for record in outcome["records"]] == [0, 1]
    assert set(outcome["records"][0]) == {"step", "op", "scan", "batches", "ksm", "procs"}
    outcome = json.loads(invoke("replay", "-", "--pages", "--events", input=json.dumps(PAIR))[0])
    assert [record["pages"] for record in outcome["records"]] == [{"a": {"v": ["a", "a"]}}, {"a": {"v": [1, 1]}}]
    assert outcome["records"][1]["events"][0][0] == "start_scan"


def test_a_recording_that_could_not_be_read_is_not_written(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "MOST_CONTAINERS", 10)
    path = tmp_path / "recording.json"
    error = invoke("replay", pair, "--record", path, code=1)[1]
    assert error == f"ksm: {path} is not written: it would have more than 10 lists and objects; take fewer --record-steps\n"
    assert not path.exists()


def test_replay_of_seeds_prints_workloads():
    lines = invoke("replay", "--seed", "3..5")[0].splitlines()
    assert [json.loads(line) for line in lines] == [generate(3), generate(4), generate(5)]
    assert invoke("replay", "--seed", "3")[0].splitlines() == lines[:1]


@pytest.mark.parametrize("arguments", [(), ("--seed", "1..x"), ("--seed", "5..3"), ("--seed", "-3"), ("--seed", "1", "--pages")])
def test_replay_wrong_usage(arguments):
    out, error = invoke("replay", *arguments, code=2)
    assert (out, error.count("\n")) == ("", 1)


def change(path, value):
    workload = copy.deepcopy(PAIR)
    *where, last = path
    target = workload
    for key in where:
        target = target[key]
    target[last] = value
    return workload


@pytest.mark.parametrize("workload", [
    [], {}, 7, {**PAIR, "more": 1}, {**PAIR, "settings": []}, {**PAIR, "procs": {}}, {**PAIR, "steps": [7]},
    {**PAIR, "steps": [{"op": []}]},
    change(("procs", 0, "name"), 7), change(("procs", 0, "vmas"), 7), change(("procs", 0, "vmas", 0, "pages"), 1 << 40),
    change(("procs", 0, "vmas", 0, "pages"), 0), change(("procs", 0, "vmas", 0, "contents"), "x"),
    change(("procs", 0, "vmas", 0, "contents"), [["x", 2]]), change(("procs", 0, "vmas", 0, "contents"), [[1, -2]]),
    change(("procs", 0, "vmas", 0, "slot"), 1 << 40), change(("steps", 0, "passes"), -1), change(("steps", 0, "passes"), "x"),
    change(("steps",), [{"op": "madvise", "proc": "a", "vma": "v", "advice": "x"}]),
    change(("steps",), [{"op": "madvise", "proc": ["a"], "vma": "v", "advice": "dontneed"}]),
    change(("steps",), [{"op": "sysfs", "file": 1, "value": 1}]), change(("steps",), [{"op": "sysfs", "file": "run", "value": [1]}]),
], ids=lambda workload: json.dumps(workload)[-60:])
def test_what_is_no_workload(workload, tmp_path):
    path = tmp_path / "workload.json"
    path.write_text(json.dumps(workload))
    out, error = invoke("replay", path, code=2)
    assert (out, error.count("\n")) == ("", 1)
    assert "no workload" in error


def test_swap():
    """A page that is paged out comes back. A page that another process maps stays."""
    steps = [{"op": "scan", "passes": 2}, {"op": "pageout", "proc": "a", "vma": "v"}, {"op": "record"}, {"op": "munmap", "proc": "a",
             "vma": "v", "page": 1}, {"op": "pageout", "proc": "a", "vma": "v", "count": 1}, {"op": "record"},
             {"op": "touch", "proc": "a", "vma": "v", "count": 1}, {"op": "record"}]
    outcome = run_port({**PAIR, "swap": 16, "steps": steps}, pages=True)
    assert [record["pages"]["a"]["v"] for record in outcome["records"]] == [["a", "a"], [1, 1], [1, 1], ["s", "-"], ["a", "-"]]


def test_prctl_and_exec():
    """After prctl all memory is merged, also new memory, and memory after exec; until it is switched off."""
    steps = [{"op": "prctl", "proc": "a", "merge": 1}, {"op": "exec", "proc": "a"},
             {"op": "mmap", "proc": "a", "vma": "w", "pages": 2, "contents": [[5, 2]], "mergeable": False}, {"op": "scan", "passes": 2},
             {"op": "prctl", "proc": "a", "merge": 0}, {"op": "record"}]
    records = run_port({**PAIR, "steps": steps}, pages=True)["records"]
    assert [record["pages"] for record in records] == [{"a": {"w": ["a", "a"]}}, {"a": {"w": [1, 1]}}, {"a": {"w": ["a", "a"]}}]
    assert [record["procs"]["a"]["ksm_merge_any"] for record in records] == ["yes", "yes", "no"]


def test_what_cannot_be_run(tmp_path):
    path = tmp_path / "workload.json"
    path.write_text(json.dumps(change(("steps",), [{"op": "touch", "proc": "b", "vma": "v"}])))
    assert invoke("replay", path, code=1)[1] == f"ksm: {path}: step 0: there is no process 'b'\n"
    path.write_text(json.dumps(change(("steps",), [{"op": "munmap", "proc": "a", "vma": "v"}, {"op": "touch", "proc": "a", "vma": "v"}])))
    assert "does not survive" in invoke("replay", path, code=1)[1]


def test_verify_the_same(pair):
    assert invoke("verify", pair, "--against", command()) == ("pair: the same\n", "")


def test_verify_shows_the_first_difference(pair):
    lines = invoke("verify", pair, "--against", command(pages_sharing=9), code=1)[0].splitlines()
    assert lines[0] == "pair: step 0: op scan, scan 2, ksm, pages_sharing: kernel 9, port 1"
    assert lines[1].split() == ["kernel", "port"]
    assert lines[2].split() == ["start_scan", "1", "2", "start_scan", "1", "2"]
    assert not any("|" in line for line in lines)


def test_events_side_by_side():
    rows = list(side_by_side(["a", "b", "c"], ["a", "x", "y", "c", "d"]))
    assert rows == [("a", " ", "a"), ("b", "|", "x"), ("", "|", "y"), ("c", " ", "c"), ("", "|", "d")]


def test_verify_recorded(tmp_path):
    path = RECORDED / "random-0.json"
    assert invoke("verify", "--recorded", path) == ("random-0: the same\n", "")
    text = path.read_text()
    start = text.rindex('"pages_scanned":')
    (tmp_path / "changed.json").write_text(text[:start] + '"pages_scanned":1' + text[start + 16:])
    out, _ = invoke("verify", "--recorded", tmp_path / "changed.json", path, code=1)
    assert "pages_scanned: kernel 1" in out.splitlines()[0]
    assert out.splitlines()[-1] == "random-0: the same"
    assert "random-0: the same" not in invoke("verify", "--first", "--recorded", tmp_path / "changed.json", path, code=1)[0]


def test_verify_says_what_it_lacks(monkeypatch, pair):
    monkeypatch.setattr(workloads, "unavailable", lambda: "this kernel has no KSM")
    assert invoke("verify", pair, code=2) == ("", "ksm: this kernel has no KSM\n")
    invoke("verify", "--recorded", pair, code=2)
    invoke("verify", code=2)
    invoke("verify", pair, "--seed", "1", code=2)
    assert "no-such-command" in invoke("verify", pair, "--against", "no-such-command", code=2)[1]
    assert invoke("verify", pair, "--against", "false", code=2)[1].count("\n") == 1
    assert invoke("verify", pair, "--against", "echo 7", code=2)[1].count("\n") == 1


def test_shrinks_to_a_smallest_one(pair):
    """The difference here is that a chain exists. Three equal pages with a limit of 2 make one."""
    def has_chain(workload):
        return any(record["ksm"]["stable_node_chains"] for record in run_port(workload)["records"] if "ksm" in record)

    seed = next(seed for seed in range(100) if has_chain(generate(seed)))
    smallest, tried = shrink(generate(seed), has_chain)
    assert has_chain(smallest)
    assert tried > 10
    pages = sum(vma["pages"] for proc in smallest["procs"] for vma in proc["vmas"])
    assert pages <= 4
    assert len(smallest["steps"]) <= 3
    assert shrink(smallest, has_chain)[0] == smallest


def test_shrinking_a_recording_cuts_its_end(tmp_path):
    path = RECORDED / "random-0.json"
    lines = path.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if '"step":1,' in line and '"pages_scanned":' in line)
    lines[number] = lines[number].replace('"pages_scanned":', '"pages_scanned":1')
    (tmp_path / "changed.json").write_text("\n".join(lines))
    out, _ = invoke("verify", "--recorded", "--shrink", tmp_path / "changed.json", code=1)
    assert json.loads(out.splitlines()[-1])["steps"] == generate(0)["steps"][:2]


def test_what_makes_no_sense_goes():
    steps = [{"op": "fork", "proc": "a", "child": "b"}, {"op": "touch", "proc": "b", "vma": "v"}, {"op": "exec", "proc": "b"},
             {"op": "touch", "proc": "b", "vma": "v"}, {"op": "mmap", "proc": "b", "vma": "w", "pages": 1},
             {"op": "touch", "proc": "b", "vma": "w"}, {"op": "exit", "proc": "b"}, {"op": "touch", "proc": "b", "vma": "w"}]
    assert sensible({**PAIR, "steps": steps})["steps"] == [*steps[:3], *steps[4:7]]
    assert sensible({**PAIR, "steps": steps[1:]})["steps"] == []


def test_generator_reaches_everything():
    """200 workloads have every kind of step, and each of them runs on the port."""
    seen, files = set(), set()
    for seed in range(200):
        workload = generate(seed)
        seen |= {step["op"] if step["op"] != "madvise" else step["advice"] for step in workload["steps"]}
        files |= {step["file"] for step in workload["steps"] if step["op"] == "sysfs"}
        run_port(workload)
    names = {"long": "scan", "sysfs": "scan", "wrong": "scan", "advisor": "scan", "unmerge": "unmergeable", "merge": "mergeable",
             "advice": "wipeonfork"}
    assert {names.get(kind, kind.partition("_")[0]) for kind in [*KINDS, "pageout"]} <= seen
    assert {"advisor_mode", "max_page_sharing", "run", "use_zero_pages", "smart_scan", "merge_across_nodes"} <= files


def test_workloads_with_huge_pages():
    """In the workloads huge pages come, are split, and are merged. No operation fails."""
    seen, splits, merged = set(), 0, 0
    for seed in range(1000, 1050):
        workload = generate(seed)
        assert wants_huge_pages(workload)
        seen |= {step["op"] if step["op"] != "madvise" else step["advice"] for step in workload["steps"]}
        if seed % 10 == 7:
            records = [record for record in run_port(workload)["records"] if "sysfs" not in record]
            assert not any("error" in record for record in records)
            sizes = [sum(proc["anon_huge_pages"] for proc in record["procs"].values()) for record in records]
            splits += max(sizes) > min(sizes)
            merged += records[-1]["ksm"]["pages_sharing"] > 0
    assert seen >= {"fork", "exec", "move", "mremap", "munmap", "mprotect", "pageout", "poke", "dontneed", "nohugepage", "touch", "batch"}
    assert splits >= 4 and merged >= 4


@pytest.mark.parametrize(("files", "reason"), [
    ({"enabled": "always madvise [never]"}, "enabled is never"), ({}, "enabled is not there"),
    ({"enabled": "always [madvise] never", "hugepages-2048kB/enabled": "always inherit madvise [never]"}, "2048kB/enabled is never"),
    ({"enabled": "always madvise [never]", "hugepages-2048kB/enabled": "always inherit [madvise] never"}, ""),
    ({"enabled": "[always] madvise never"}, ""), ({"enabled": "always [madvise] never"}, "")])
def test_huge_pages_that_the_kernel_does_not_give_are_not_asked_for(files, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(huge, "THP", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert wrong_machine(generate(1000)).endswith(reason) and bool(wrong_machine(generate(1000))) == bool(reason)
    assert wrong_machine(generate(0)) == ""


def test_advised_batches_are_not_compared():
    """The advisor computes pages_to_scan from processor time: it may differ, and so may the batches."""
    def outcome(mode, pages, sharing):
        return {"records": [{"step": 0, "op": "scan", "batches": pages, "ksm": {"advisor_mode": mode, "pages_to_scan": pages,
                                                                                 "pages_sharing": sharing}}]}
    assert first_difference(outcome("scan-time", 10, 1), outcome("scan-time", 5000, 1)) is None
    assert first_difference(outcome("scan-time", 10, 1), outcome("scan-time", 5000, 2)).kernel == 1
    assert first_difference(outcome("none", 10, 1), outcome("none", 5000, 1)).where.endswith("batches")


def test_an_unsteady_reference_is_an_error():
    from ksm.oracle.verify import verify

    numbers = iter(range(100))

    def unsteady(workload):
        outcome = run_port(workload, pages=True, events=True)
        outcome["records"][0]["ksm"]["full_scans"] = 50 + next(numbers)
        return outcome

    with pytest.raises(OracleError, match="does not repeat itself"):
        verify(PAIR, unsteady)
