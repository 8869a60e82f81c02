# SPDX-License-Identifier: GPL-2.0-only
"""ksm doctor: where it reads counters, and the forms in which it prints what they mean."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import invoke, refused

import ksm
from ksm.cli.group import main

HOME = Path(ksm.__file__).resolve().parents[1]
NODE = {"pages_shared": 129547, "pages_sharing": 5119146, "pages_unshared": 1760924, "pages_volatile": 10761341}
TEXT = "".join(f"{name} {value}\n" for name, value in NODE.items())
RUNNING = "/sys/kernel/mm/ksm"


def given(text, *arguments, code=0):
    """The result of a run with this standard input."""
    result = CliRunner().invoke(main, ["doctor", "-", *arguments], input=text, prog_name="ksm", catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def found(text, *arguments):
    return json.loads(given(text, "--json", *arguments).stdout)


def names(value):
    return {finding["name"] for finding in value["findings"]}


@pytest.fixture
def tree(tmp_path):
    """A copy of a system's files: 6.1 by what it says, with two processes."""
    with ksm.Machine("16M") as machine:
        process = machine.spawn()
        start = process.mmap(10 * ksm.PAGE_SIZE)
        process.write(start, b"=" * 10 * ksm.PAGE_SIZE)
        process.madvise(start, 10 * ksm.PAGE_SIZE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        sysfs = tmp_path / "sys/kernel/mm/ksm"
        sysfs.mkdir(parents=True)
        for name in machine.ksm.names():
            (sysfs / name).write_text(machine.ksm.show(name))
        for pid, comm in ((7, b"qemu \xff\x1b[1m"), (12, b"idle")):
            folder = tmp_path / "proc" / str(pid)
            folder.mkdir(parents=True)
            stat = process.ksm_stat() if pid == 7 else dict.fromkeys(process.ksm_stat(), 0)
            (folder / "ksm_stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()) + "ksm_merge_any: no\n")
            (folder / "comm").write_bytes(comm + b"\n")
        (tmp_path / "proc" / "2").mkdir()  # a kernel thread
        (tmp_path / "proc/2/ksm_stat").write_text("")
        (tmp_path / "proc/vmstat").write_text("nr_free_pages 7\ncow_ksm 3\n")
        release = tmp_path / "proc/sys/kernel/osrelease"
        release.parent.mkdir(parents=True)
        release.write_text("6.1.0-18-amd64\n")
        yield tmp_path


def test_lines_of_standard_input():
    text = given(TEXT, "--kernel", "6.12").stdout
    assert "KSM saves 19.5 GiB, or 18.5 GiB after its rmap_items; 1 thing is wrong." in text
    assert "10,761,341    41.1 GiB  60.6 %" in text
    assert "By the formulas of Linux 6.12:" in text
    assert re.search(r"general_profit = 5,119,146 x 4,096 - 17,770,958 rmap_items x 64 =\s+19,830,680,704", text)
    assert re.search(r"(?m)^  To do: ", text)


@pytest.mark.parametrize("form", ["{} {}", "{}: {}", "{}={}", "{}\t{}", "  {} : {}  ", "/sys/kernel/mm/ksm/{}:{}", "{}:{}", "copy/{}:{}"])
def test_forms_of_lines(form):
    text = "\n".join(form.format(name, value) for name, value in NODE.items())
    value = found(f"# a remark\n\nnr_mapped 12\n{text}\n", "--kernel", "6.12")
    assert value["counters"] == NODE
    assert value["profit"] == 19_830_680_704


def test_what_grep_prints(tree):
    """Of sysfs and of processes at once, as --help proposes."""
    printed = subprocess.run("grep . sys/kernel/mm/ksm/* proc/[0-9]*/ksm_stat", shell=True, cwd=tree, capture_output=True, check=True)
    value = found(printed.stdout, "--kernel", "6.12")
    whole = json.loads(invoke("doctor", "--sysfs-dir", tree, "--kernel", "6.12", "--json")[0])
    assert value["counters"] == {name: number for name, number in whole["counters"].items() if name != "cow_ksm"}
    assert value["counters"]["advisor_mode"] == "none"
    assert [each["ksm_merging_pages"] for each in value["processes"]] == [10]


def test_ksm_stat_of_a_process():
    """ksm_zero_pages is then that of the process."""
    value = found("ksm_rmap_items 700\nksm_zero_pages 2\nksm_merging_pages 3\nksm_merge_any: yes\n", "--kernel", "6.12")
    assert value["counters"] == {}
    [process] = value["processes"]
    assert process == {"name": "the process", "ksm_rmap_items": 700, "ksm_zero_pages": 2, "ksm_merging_pages": 3, "ksm_merge_any": 1}
    assert names(value) == {"process-costs-more"}
    assert value["formulas"] == []
    assert "What KSM saves is not known" in given("ksm_merging_pages 3\n").stdout


def test_what_was_not_read_is_not_shown():
    """A counter that is not there is no 0, and no rule takes it for one."""
    text = given("pages_sharing 500\nrun 1\nfull_scans 9\n", "--kernel", "6.12").stdout
    assert "Not read: pages_shared, pages_unshared, pages_volatile." in text
    assert "no equal" not in text and "volatile, skipped" not in text and "nothing is wrong" in text
    assert names(found("run 1\nfull_scans 9\n", "--kernel", "6.12")) == set()
    assert names(found("run 0\n", "--kernel", "6.12")) == set()
    assert found("run 0\n")["missing"] == ["pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"]


def test_a_copied_tree(tree):
    """It says which kernel it is of; a folder of sysfs alone does not, and has no processes."""
    value = json.loads(invoke("doctor", "--sysfs-dir", tree, "--json")[0])
    assert (value["kernel"], value["counters"]["cow_ksm"], value["counters"]["pages_sharing"]) == ("6.1.0", 3, 9)
    assert [each["name"] for each in value["processes"]] == ["7 qemu \ufffd\x1b[1m"]
    alone = json.loads(invoke("doctor", "--sysfs-dir", tree / "sys/kernel/mm/ksm", "--kernel", "6.1", "--json")[0])
    assert (alone["counters"]["pages_sharing"], alone["processes"], alone["profit"]) == (9, [], value["profit"])
    text, _ = invoke("doctor", "--sysfs-dir", tree)
    assert "7 qemu \ufffd?[1m" in text and "this kernel has none" in " ".join(text.split()) and "\x1b" not in text
    (tree / "sys/kernel/mm/ksm/pages_volatile").unlink()
    assert "pages_volatile" not in json.loads(invoke("doctor", "--sysfs-dir", tree, "--json")[0])["counters"]


def test_formulas_of_another_kernel(tree):
    assert "KSM saves" in invoke("doctor", "--sysfs-dir", tree, "--kernel", "6.12")[0]
    assert "By the formulas of Linux 6.12:" in invoke("doctor", "--sysfs-dir", tree, "--kernel", "6.12")[0]


def test_page_size():
    assert found(TEXT, "--kernel", "6.12", "--page-size", "65536")["saved"] == 5119146 * 65536
    assert "power of two" in refused("doctor", "--page-size", "5000", code=2)


@pytest.mark.skipif(not os.path.isdir(RUNNING), reason="this kernel has no KSM")
def test_the_running_kernel():
    value = json.loads(invoke("doctor", "--json")[0])
    assert set(os.listdir(RUNNING)) - set(value["counters"]) == set()
    assert os.uname().release.startswith(value["kernel"])
    assert "By the formulas of Linux" in invoke("doctor")[0]


def test_for_prometheus(tree):
    """Prometheus' own parser reads it; each metric has its help and type; what cannot be is left out."""
    parser = pytest.importorskip("prometheus_client.parser")
    (tree / "sys/kernel/mm/ksm/ksm_zero_pages").write_text("18446744073709551615\n")
    (tree / "proc/7/comm").write_bytes(b'a "b" \\n\n')
    text, _ = invoke("doctor", "--sysfs-dir", tree, "--kernel", "6.7", "--prometheus")
    metrics = {metric.name: metric for metric in parser.text_string_to_metric_families(text)}
    assert all(metric.documentation and metric.type in ("gauge", "counter") for metric in metrics.values())
    assert text.count("# HELP ") == text.count("# TYPE ") == len(metrics)
    samples = {(sample.name, *sample.labels.values()): sample.value for metric in metrics.values() for sample in metric.samples}
    assert samples[("ksm_pages_sharing",)] == 9
    assert samples[("ksm_full_scans_total",)] == 3 and metrics["ksm_full_scans"].type == "counter"
    assert samples[("ksm_saved_bytes",)] == 9 * 4096
    assert samples[("ksm_advisor_mode",)] == 0
    assert samples[("ksm_finding", "zero-pages-below-zero", "kernel bug")] == 1
    assert samples[("ksm_process_merging_pages", '7 a "b" \\n')] == 10
    assert samples[("ksm_general_profit_bytes",)] == samples[("ksm_computed_profit_bytes",)] == 9 * 4096 - 10 * 64
    assert ("ksm_zero_pages",) not in samples
    assert ("ksm_process_zero_pages", '7 a "b" \\n') in samples


def watching(*arguments):
    words = [sys.executable, "-m", "ksm", "doctor", *map(str, arguments)]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(HOME)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_watch(tree):
    """A line of JSON each time, with what is then; Ctrl-C ends it."""
    with watching("--sysfs-dir", tree, "--watch", "0.1", "--json") as process:
        first = json.loads(process.stdout.readline())
        new = tree / "new"
        new.write_text("100\n")
        new.replace(tree / "sys/kernel/mm/ksm/pages_sharing")
        values = [first]
        while len(values) < 100 and values[-1]["counters"]["pages_sharing"] != 100:
            values.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == "ksm: interrupted\n"
    assert process.returncode == 130
    assert first["counters"]["pages_sharing"] == 9
    assert values[-1]["counters"]["pages_sharing"] == 100
    assert values[-1]["time"] > first["time"]


def test_watch_says_what_has_changed(tree):
    with watching("--sysfs-dir", tree, "--watch", "0.1") as process:
        line = next(line for line in process.stdout if line.startswith("Since the last time"))
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert line == "Since the last time: +0.0 KiB saved, +0 full_scans, +0 pages_scanned, +0 cow_ksm\n"


@pytest.mark.parametrize("text", ["", "\n", "nonsense", "pages_shared", "nr_mapped 5", "\0", b"\xff\xfe", "pages_shared x",
                                  "pages_shared 1.5", "pages_shared 99999999999999999999", "pages_shared " + "9" * 5000,
                                  "pages_shared -99999999999999999999",
                                  "run 0\nrun 1", "advisor_mode sideways", "pages_shared \u0661", "ksm_merge_any: perhaps", "pages_shared:",
                                  "pages_shared 1 2"])  # fmt: skip
def test_input_that_is_none(text):
    """A line says what is wrong."""
    result = given(text, code=1)
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert len(result.stderr) < 160 and result.stderr[:-1].isprintable()


def test_numbers_at_the_edge():
    """Counters as large as there are do not break a form."""
    for value in (0, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1, -(1 << 63)):
        text = "".join(f"{name} {value}\n" for name in (*NODE, "run", "pages_to_scan", "sleep_millisecs", "full_scans", "max_page_sharing",
                                                        "stable_node_chains", "stable_node_dups", "ksm_zero_pages",
                                                        "general_profit", "advisor_target_scan_time", "advisor_max_cpu",
                                                        "advisor_max_pages_to_scan"))  # fmt: skip
        for mode in ("none", "none [scan-time]"):
            for form in ("--json", "--prometheus"):
                given(f"{text}advisor_mode {mode}\n", form)
            assert "wrong" in given(f"{text}advisor_mode {mode}\n").stdout


def test_much_input():
    assert "larger than 16 MiB" in given("run 1\n" * (3 << 20), code=1).stderr


@pytest.mark.parametrize("what", ["missing", "empty", "file", "binary", "huge", "fifo", "folder"])
def test_trees_that_are_none(tmp_path, what):
    folder = tmp_path / "tree"
    if what == "file":
        folder.write_text("x")
    elif what != "missing":
        folder.mkdir()
    one = folder / "pages_shared"
    if what == "binary":
        one.write_bytes(b"\0\xff\n")
    elif what == "huge":
        one.write_bytes(b"")
        os.truncate(one, 1 << 40)
    elif what == "fifo":
        os.mkfifo(one)
    elif what == "folder":
        one.mkdir()
    assert str(folder) in refused("doctor", "--sysfs-dir", folder)


@pytest.mark.parametrize("words", ["--json --prometheus", "- --watch 1", "--watch 1 --prometheus", "--watch 0", "--watch nan", "--watch x",
                                   "--kernel x", "--kernel 6", "--page-size 1", "- --sysfs-dir x", "a b"])  # fmt: skip
def test_wrong_usage(words):
    refused("doctor", *words.split(), code=2)


def test_a_file_of_lines(tmp_path):
    path = tmp_path / "counters"
    path.write_text(TEXT)
    assert json.loads(invoke("doctor", path, "--kernel", "6.12", "--json")[0])["counters"] == NODE
    assert refused("doctor", tmp_path / "missing") == f"ksm: {tmp_path}/missing: No such file or directory"
