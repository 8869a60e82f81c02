# SPDX-License-Identifier: GPL-2.0-only
"""The command `ksm scan`, as a user calls it."""

import errno
import gzip
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import commands
import pytest
from click.testing import CliRunner
from commands import PAGE, write_image

import ksm
from ksm.cli.group import main
from ksm.estimate.report import terminal_width
from ksm.sources.pace import set_share

HOME = Path(ksm.__file__).resolve().parents[1]
TARGET = Path(__file__).resolve().parents[1] / "sources" / "target.py"


invoke, refused = partial(commands.invoke, "scan", "--zeros", "count"), partial(commands.refused, "scan")


def command(*arguments, prefix=(), env=None, **options):
    """The command in a process of its own, as it is installed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(ksm.__file__).resolve().parents[1]), **(env or {})}
    command = [*prefix, sys.executable, "-m", "ksm", "scan", "--zeros", "count", *map(str, arguments)]
    return subprocess.run(command, env=environment, text=True, **options)


@pytest.fixture
def images(tmp_path):
    """Two images: 3 zero pages, 4 duplicates within the first, 2 pages in both."""
    return (
        write_image(tmp_path / "first", [0, 0, 0, 1, 1, 1, 2, 2, 2, 7, 8, 9]),
        write_image(tmp_path / "second", [0, 7, 8, 10]),
    )


def test_json(images):
    out, err = invoke("--json", *images)
    assert err == ""
    report = json.loads(out)
    assert set(report["ksm"]) == {
        "run", "pages_to_scan", "sleep_millisecs", "merge_across_nodes", "max_page_sharing", "use_zero_pages", "smart_scan",
        "stable_node_chains_prune_millisecs", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "pages_scanned",
        "pages_skipped", "full_scans", "stable_node_chains", "stable_node_dups", "ksm_zero_pages", "general_profit", "advisor_mode",
        "advisor_max_cpu", "advisor_min_pages_to_scan", "advisor_max_pages_to_scan", "advisor_target_scan_time",
    }  # fmt: skip
    assert report["era"] == "6.12"
    assert report["savings"] == {"zero": 3, "within": 4, "across": 2, "pages": 9, "bytes": 9 * PAGE}
    assert report["sources"] == [
        {"name": images[0], "kind": "image", "pages": 12, "holes": 0, "zero_holes": 0, "zeros": 0, "ksm_rmap_items": 12,
         "ksm_merging_pages": 11, "ksm_zero_pages": 0, "ksm_process_profit": 11 * PAGE - 12 * 64},
        {"name": images[1], "kind": "image", "pages": 4, "holes": 0, "zero_holes": 0, "zeros": 0, "ksm_rmap_items": 4,
         "ksm_merging_pages": 3, "ksm_zero_pages": 0, "ksm_process_profit": 3 * PAGE - 4 * 64},
    ]  # fmt: skip
    assert report["ksm"]["pages_shared"] == 5
    assert report["ksm"]["pages_unshared"] == 2
    assert (report["pages"], report["passes"], report["settled"]) == (16, 3, True)
    assert any("a still image overstates" in note for note in report["notes"])


def test_report_for_a_person(images):
    out, _ = invoke(*images)
    lines = out.splitlines()
    assert lines[0] == "KSM would free 36.0 KiB of 64.0 KiB (56.2 %), and need 1.4 KiB itself."
    figures = {" ".join(words[:-3]): words[-3] for words in map(str.split, lines[3:11])}
    assert figures == {
        "Freed": "9", "zero pages": "3", "duplicates within one source": "4", "duplicates across sources": "2", "Kept": "7",
        "merged: the one copy": "5", "unshared: no page is equal": "2", "volatile: changed between passes": "0",
    }  # fmt: skip
    assert any(line.startswith("general_profit") for line in lines)
    assert [re.split("  +", line)[1] for line in lines if ("image" in line and "first" in line) or "second" in line] == ["image"] * 2
    assert sum("a still image overstates" in line for line in lines) == 1
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("columns", [20, 30, 40, 79])
def test_the_first_line_fits_into_a_narrow_terminal(tmp_path, columns):
    image = write_image(tmp_path / "image", [1, 1, 2, 2, 3])
    said = command(image, capture_output=True, env={"COLUMNS": str(columns)}).stdout.partition("\n\n")[0]
    assert max(map(len, said.splitlines())) <= columns
    assert " ".join(said.split()) == command(image, capture_output=True, env={"COLUMNS": "80"}).stdout.splitlines()[0]


def test_names_that_are_wide_or_long(tmp_path):
    """The table counts the columns that a terminal shows a name in. A name that is too long shows its end."""
    short = write_image(tmp_path / "名前", [1, 2, 2])
    (tmp_path / ("long" * 30)).write_bytes(Path(short).read_bytes())
    (tmp_path / ("名" * 44)).write_bytes(Path(short).read_bytes())
    wide = command("名" * 44, cwd=tmp_path, capture_output=True, env={"COLUMNS": "80"}).stdout.splitlines()
    [line] = [line for line in wide if line.startswith("…名")]
    assert len(line) + line.count("名") <= 80
    result = command("名前", "long" * 30, cwd=tmp_path, capture_output=True, env={"COLUMNS": "90"})
    lines = result.stdout.splitlines()
    head, rule, first, second = lines[lines.index(next(line for line in lines if line.startswith("Source"))) :][:4]
    assert head.split() == ["Source", "Kind", "MiB", "merged", "profit"]
    assert rule == "─" * len(head)
    assert first.split()[:2] == ["名前", "image"]
    assert len(first) + 2 == len(second) == len(head)
    assert second.startswith("…g" + "long" * 9 + " ")


def all_of(terminal):
    """All that was written to a terminal that no process has open any more. A read gives a piece of it."""
    pieces = []
    try:
        while piece := os.read(terminal, 65536):
            pieces.append(piece)
    except OSError as error:
        assert error.errno == errno.EIO
    os.close(terminal)
    return b"".join(pieces).decode()


def test_what_is_bold_for_a_terminal(images):
    for terminal, bold in (("xterm", True), ("dumb", False)):
        ours, theirs = pty.openpty()
        result = command(*images, stdout=theirs, env={"TERM": terminal, "COLUMNS": "100"})
        os.close(theirs)
        assert result.returncode == 0
        seen = all_of(ours)
        assert seen.startswith("\x1b[1mKSM would free 36.0 KiB" if bold else "KSM would free 36.0 KiB")
        assert ("\x1b[1mFreed " in seen) is bold
        assert ("\x1b" in seen) is bold
        assert "writing to would not stay merged" in seen  # not wrapped: the terminal is wide enough


def test_columns_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "133")
    assert terminal_width() == 133
    for nothing in ("", "0", "wide"):
        monkeypatch.setenv("COLUMNS", nothing)
        monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((70, 0)))
        assert terminal_width() == 70
        monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((0, 0)))
        assert terminal_width() == 80
        monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.stat(f"/no/{fd}"))
        assert terminal_width() == 80


def test_nothing_is_imported_that_an_image_does_not_need(images):
    """Every scan pays for its imports: rich alone takes as long as 30,000 pages."""
    code = "import sys; from ksm.cli.group import main; main(sys.argv[1:], standalone_mode=False); print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(ksm.__file__).resolve().parents[1])}
    result = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}; {code}", "scan", "--zeros", "count", images[0]],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    imported = set(result.stdout.splitlines()[-1].split())
    assert not {"rich", "pygments", "jinja2", "pathlib", "json", "bz2", "lzma", "importlib.metadata"} & imported
    assert not {name for name in imported if name.startswith(("ksm.sources.unpack", "ksm.sources.core", "ksm.sources.kdump"))}


def test_the_era_of_2011(images):
    report = json.loads(invoke("--json", "--era", "2.6.38", *images)[0])
    assert set(report["ksm"]) == {
        "run", "pages_to_scan", "sleep_millisecs", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans",
    }  # fmt: skip
    assert (report["era"], report["pages"], report["passes"], report["settled"]) == ("2.6.38", 16, 3, True)
    assert [report["ksm"][name] for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")] == [5, 9, 2, 0]
    assert report["savings"] == {"zero": 3, "within": 4, "across": 2, "pages": 9, "bytes": 9 * PAGE}
    assert report["sources"] == [
        {"name": name, "kind": "image", "pages": pages, "holes": 0, "zero_holes": 0, "zeros": 0}
        for name, pages in zip(images, (12, 4), strict=True)
    ]

    out, _ = invoke("--era", "2.6.38", *images)
    lines = out.splitlines()
    assert lines[0] == "KSM would free 36.0 KiB of 64.0 KiB (56.2 %), and need 1.3 KiB itself."
    figures = {" ".join(words[:-3]): words[-3] for words in map(str.split, lines[3:11])}
    assert figures == {
        "Freed": "9", "zero pages": "3", "duplicates within one source": "4", "duplicates across sources": "2", "Kept": "7",
        "merged: the one copy": "5", "unshared: no page is equal": "2", "volatile: changed between passes": "0",
    }  # fmt: skip
    assert lines[15].split() == ["Source", "Kind", "MiB"]
    assert not re.search("general_profit:|rmap_item|ksm_zero_pages", out)
    assert sum("the KSM of Linux 2.6.38" in line for line in lines) == 1


def test_the_era_6_1(images):
    report = json.loads(invoke("--json", "--era", "6.1", *images)[0])
    assert len(report["ksm"]) == 14 and "max_page_sharing" in report["ksm"] and "general_profit" not in report["ksm"]
    assert (report["era"], report["savings"]["pages"]) == ("6.1", 9)
    assert [(source["ksm_rmap_items"], source["ksm_merging_pages"]) for source in report["sources"]] == [(12, 11), (4, 3)]
    assert all("ksm_process_profit" not in source for source in report["sources"])

    out, _ = invoke("--era", "6.1", *images)
    lines = out.splitlines()
    assert lines[15].split() == ["Source", "Kind", "MiB", "merged"]
    assert not re.search("general_profit:|profit of|ksm_zero_pages", out)
    assert "the KSM of Linux 6.1, which counted neither general_profit nor pages that became the zero page" in " ".join(out.split())
    out, _ = invoke("--era", "6.1", "--set", "use_zero_pages=1", *images)
    assert "KSM does not count what became the zero page" in " ".join(out.split())


def test_the_era_of_2011_looks_into_a_process(target):
    report = json.loads(invoke("--json", "--era", "2.6.38", "--interval", "0", f"pid:{target.pid}")[0])
    [source] = report["sources"]
    assert set(source) == {"name", "kind", "pages", "holes", "zero_holes", "zeros"}
    assert report["savings"]["within"] >= 297
    assert report["savings"]["zero"] >= 49
    assert invoke("--era", "2.6.38", "--interval", "0", f"pid:{target.pid}")[0].startswith("KSM would free ")


def test_nothing_to_gain(tmp_path):
    out, _ = invoke(write_image(tmp_path / "unique", range(100, 356)))
    assert out.startswith("KSM would free nothing: of 1.0 MiB, no two pages are equal.\n")
    out, _ = invoke(write_image(tmp_path / "little", [1, *range(1, 1000)]))
    assert out.startswith("Not worth it: KSM would free 4.0 KiB of 3.9 MiB (0.1 %), and need 62.6 KiB itself.\n")
    path = tmp_path / "hole"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    if path.stat().st_blocks == 0:
        assert invoke(path)[0].startswith("KSM would free 1,020.0 KiB of 1.0 MiB (99.6 %)")
        out, _ = invoke(path, "--holes", "absent")
        assert out.startswith("There are no pages that KSM could merge.\nHoles, and left out of dumps: 256 pages, which are not counted.\n")


def test_nothing_found_is_not_nothing_there(tmp_path):
    """One pass only takes checksums, and compares nothing."""
    path = write_image(tmp_path / "equal", [5] * 256)
    out, _ = invoke("--passes", 1, path)
    assert out.startswith("KSM found nothing to free in 1 pass over 1.0 MiB.\n")
    assert "volatile: not yet seen unchanged" in out
    assert "changed between passes" not in out
    out, _ = invoke("--passes", 2, write_image(tmp_path / "unique", range(100, 356)))
    assert out.startswith("KSM found nothing to free in 2 passes over 1.0 MiB.\n")
    assert "volatile: changed between passes" in out


def test_settings_and_passes(images):
    report = json.loads(invoke("--json", "--set", "use_zero_pages=1", "--set", "max_page_sharing=2", "--passes", 5, *images)[0])
    assert report["ksm"]["use_zero_pages"] == 1
    assert report["savings"] == {"zero": 4, "within": 2, "across": 2, "pages": 8, "bytes": 8 * PAGE}
    assert report["passes"] == report["ksm"]["full_scans"] == 5
    assert "zero" in invoke("--set", "use_zero_pages=1", *images)[0].split("Source")[1]


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--set", "nonsense=1"], "KSM has no nonsense; there are "),
        (["--set", "full_scans=1"], "full_scans can only be read"),
        (["--set", "max_page_sharing=1"], "max_page_sharing=1: Invalid argument"),
        (["--set", "run"], "run: it is written KNOB=VALUE"),
        (["--set", "="], "=: it is written KNOB=VALUE"),
        (["--set", os.fsdecode(b"us\xffe=1")], "KSM has no us?e; there are "),
        (["--set", os.fsdecode(b"run=\xff")], "run=?: Invalid argument"),
        (["--era", "3.0"], "'3.0' is not one of '7.3', '6.12', '6.1', '2.6.38'"),
        (["--era", ""], "is not one of '7.3', '6.12', '6.1', '2.6.38'"),
        (["--era", "2.6.38", "--set", "smart_scan=1"], "KSM has no smart_scan; there are sleep_millisecs, pages_to_scan, run ("),
        (["--era", "6.1", "--set", "smart_scan=1"], "KSM has no smart_scan; there are sleep_millisecs, pages_to_scan, run, merge"),
        (["--set", "use_zero_pages=1", "--era", "2.6.38"], "KSM has no use_zero_pages"),
        (["--passes", "0"], "0 is not in the range"),
        (["--interval", "x"], "'x' is not a valid float"),
        (["--interval", "nan"], "nan is not in the range"),
        (["--interval", "inf"], "inf is not in the range"),
        (["--gentle", "--threads", "2"], "--gentle works with one thread, and not with --threads 2"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_usage(arguments, text):
    line = refused(*arguments, code=2)
    assert line.startswith("ksm scan: ")
    assert text in line


def test_gently(target, images):
    """The same report, and the rests end with the command."""
    reports = [json.loads(invoke("--json", "--interval", "0", *option, f"pid:{target.pid}", images[0])[0]) for option in ([], ["--gentle"])]
    assert reports[0]["ksm"]["pages_sharing"] == reports[1]["ksm"]["pages_sharing"] > 0
    assert set_share(0) == 0


def test_bad_sources(tmp_path, images):
    assert refused(tmp_path / "missing") == f"ksm: {tmp_path}/missing: No such file or directory"
    assert refused(images[0], tmp_path) == f"ksm: {tmp_path}: is a directory, and not one that CRIU has written"
    assert refused("pid:999999999") == "ksm: pid:999999999: no such process".replace("pid:", "pid ")
    (tmp_path / "bad\n\x1b[31mname").touch()
    assert refused(tmp_path / "bad\n\x1b[31mname") == f"ksm: {tmp_path}/bad ?[31mname: empty"


def test_a_process_without_its_pid(images, tmp_path, monkeypatch):
    """A number that is no file's name, or the file of a process's memory: the error says how a process is written."""
    monkeypatch.chdir(tmp_path)
    other = os.getppid()
    meant = f"; the memory of a process is written as pid:{other}"
    assert refused(other) == f"ksm: {other}: No such file or directory{meant}"
    assert refused(f"/proc/{other}/mem") == f"ksm: /proc/{other}/mem: empty{meant}"
    assert refused("/proc/self/mem") == "ksm: /proc/self/mem: empty; the memory of a process is written as pid:N"
    assert refused("999999999") == "ksm: 999999999: No such file or directory"
    assert refused("") == refused(images[0], "") == "ksm: '': a source is pid:N, a file, or -"
    shutil.copy(images[0], str(other))
    assert invoke(other)[0].startswith("KSM would free 24.0 KiB")


@pytest.mark.parametrize("how", [[], ["--exact"]])
def test_many_files_and_few_descriptors(tmp_path, how):
    """The soft limit of open files is raised as far as the hard one allows. Where that is not enough, the error says what is missing."""
    write_image(tmp_path / "image", [1, 2])
    limited = ["sh", "-c", 'ulimit -Sn 64 && ulimit -Hn "$0" && exec "$@"']
    many = command("--json", *how, *["image"] * 100, prefix=[*limited, "1024"], cwd=tmp_path, capture_output=True)
    assert many.stderr == ""
    assert json.loads(many.stdout)["savings"]["pages"] == 198
    few = command(*how, *["image"] * 100, prefix=[*limited, "64"], cwd=tmp_path, capture_output=True)
    assert (few.returncode, few.stdout) == (1, "")
    assert few.stderr == "ksm: image: too many open files: at most 64 are allowed (ulimit -Hn)\n"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, and setpriv")
def test_no_permission(tmp_path, images):
    os.chmod(images[0], 0)
    result = command(images[0], prefix=["setpriv", "--bounding-set=-all", "--inh-caps=-all"], capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"ksm: {images[0]}: Permission denied\n")


def test_as_installed(images, tmp_path):
    result = command("--json", "first", "second", capture_output=True, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["savings"]["pages"] == 9
    result = command("missing", capture_output=True, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "ksm: missing: No such file or directory\n")
    with open("/dev/full", "w") as full:
        result = command(*images, stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (1, "ksm: No space left on device: standard output\n")


def hear_ctrl_c():
    # A shell starts background commands with SIGINT ignored, and their children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_while_importing(tmp_path):
    (tmp_path / "click.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(10)\n")
    path = os.pathsep.join([str(tmp_path), str(Path(ksm.__file__).resolve().parents[1])])
    for arguments in (["-m", "ksm"], ["-c", "from ksm.cli.start import main; main()"]):
        result = subprocess.run(
            [sys.executable, *arguments, "scan"], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60,
            preexec_fn=hear_ctrl_c,
        )  # fmt: skip
        assert (result.returncode, result.stdout, result.stderr) == (130, "", "ksm: interrupted\n")


def test_interrupted_in_a_scan(images):
    environment = {**os.environ, "PYTHONPATH": str(Path(ksm.__file__).resolve().parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "ksm", "scan", "--exact", "--interval", "60", images[0]],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    try:
        maps = Path(f"/proc/{process.pid}/maps")
        while images[0] not in maps.read_text() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "ksm: interrupted\n")
        assert process.returncode == 130
    finally:
        process.kill()


def test_a_bar_where_somebody_looks(images):
    ours, theirs = pty.openpty()
    result = command("--json", *images, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    assert result.returncode == 0
    assert json.loads(result.stdout)["savings"]["pages"] == 9
    assert "pass 3" in all_of(ours)


def test_an_image_that_shrinks(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(os.urandom(64 * PAGE))
    script = """if True:
        import os, sys
        from ksm.cli.group import main
        from ksm.estimate.scan import Scan
        read = Scan.read

        def read_and_truncate(self, number):
            read(self, number)
            os.truncate(sys.argv[-1], 4096)

        Scan.read = read_and_truncate
        main(["scan", "--zeros", "count", "--exact", sys.argv[-1]])
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(ksm.__file__).resolve().parents[1])}
    result = subprocess.run([sys.executable, "-c", script, path], env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "ksm: a memory image cannot be read any more: it has been truncated, or its disk has failed\n"


@pytest.fixture
def target():
    """A process with 300 pages in groups of three equal ones, 50 pages of zeros, and 20 unique pages."""
    process = subprocess.Popen([sys.executable, TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdin.write("a = area(370); fill(a, 0, [10**15 + i // 100 for i in range(300)] + [0] * 50 + [10**16 + i for i in range(20)])\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
    yield process
    process.kill()
    process.communicate()


def test_a_live_process(target):
    report = json.loads(invoke("--json", "--interval", "0", f"pid:{target.pid}")[0])
    [source] = report["sources"]
    assert source["name"].startswith(f"pid {target.pid} (")
    assert source["kind"] == "process"
    assert report["savings"]["within"] >= 297
    assert report["savings"]["zero"] >= 49
    assert source["ksm_merging_pages"] >= 350
    assert source["pages"] >= 370
    assert not any("a still image" in note for note in report["notes"])
    assert not any("MADV_MERGEABLE" in note for note in report["notes"])


def test_who_has_asked_for_ksm(target):
    """With --advised, and nobody who has asked, the report says so. To one that has asked for a part, as QEMU does, --advised is shown."""
    report = json.loads(invoke("--json", "--advised", "--interval", "0", f"pid:{target.pid}")[0])
    name = report["sources"][0]["name"]
    assert report["pages"] == 0
    assert f"{name} has not asked for KSM (MADV_MERGEABLE), and --advised scans nothing else" in report["notes"]
    target.stdin.write("a.madvise(mmap.MADV_MERGEABLE)\n")
    target.stdin.flush()
    if target.stdout.readline() != "done\n":
        pytest.skip("this kernel has no KSM")
    report = json.loads(invoke("--json", "--interval", "0", f"pid:{target.pid}")[0])
    assert any(note.startswith(f"{name} has asked for KSM, for a part of its memory") for note in report["notes"])
    report = json.loads(invoke("--json", "--advised", "--interval", "0", f"pid:{target.pid}")[0])
    assert report["pages"] == 370
    assert not any("asked" in note for note in report["notes"])


def test_which_mappings_count(target):
    """--as says it, and the report says what it means. What KSM does not look at is named by --as is."""
    source = f"pid:{target.pid}"
    default = json.loads(invoke("--json", "--interval", "0", source)[0])
    assert "processes count as if they called prctl(PR_SET_MEMORY_MERGE) now (--as prctl)" in default["notes"]
    target.stdin.write("a.madvise(mmap.MADV_MERGEABLE)\n")
    target.stdin.flush()
    if target.stdout.readline() != "done\n":
        pytest.skip("this kernel has no KSM")
    reports = {which: json.loads(invoke("--json", "--interval", "0", "--as", which, source)[0]) for which in ("prctl", "advised", "is")}
    assert reports["prctl"]["pages"] >= default["pages"] - 20
    assert reports["advised"]["pages"] == reports["is"]["pages"] == 370
    assert "only memory that is mergeable already counts (--as advised)" in reports["advised"]["notes"]
    [left] = (note for note in reports["is"]["notes"] if "--as is" in note)
    assert left.startswith("only memory that is mergeable now counts (--as is): ")
    assert "of [stack]" in left
    assert left.endswith(" are left out, which KSM does not look at")
    assert json.loads(invoke("--json", "--interval", "0", "--advised", "--as", "advised", source)[0])["pages"] == 370
    assert "--as is is something else" in refused("--advised", "--as", "is", source, code=2)
    assert "is not one of 'prctl', 'advised', 'is'" in refused("--as", "it", source, code=2)


def test_a_process_beside_images(target, tmp_path):
    path = write_image(tmp_path / "image", [10**15, 10**15 + 1, 10**15 + 1, 99])
    report = json.loads(invoke("--json", "--interval", "0", path, f"pid:{target.pid}")[0])
    assert [source["kind"] for source in report["sources"]] == ["image", "process"]
    assert report["savings"]["across"] >= 2
    assert report["savings"]["within"] >= 298


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root, and unshare")
def test_all_processes(tmp_path):
    """The processes are in a PID namespace of their own, so that it is known which there are."""
    environment = {**os.environ, "PYTHONPATH": str(Path(ksm.__file__).resolve().parents[1])}
    script = """
        { echo 'a = area(300); fill(a, 0, [10**15] * 300)'; sleep 1000; } | "$0" "$1" > started &
        while ! grep -q done started; do sleep 0.05; done
        "$0" -m ksm scan --json --interval 0
    """
    result = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, sys.executable, TARGET],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if result.returncode and "unshare" in result.stderr:
        pytest.skip(result.stderr)
    report = json.loads(result.stdout)
    names = [source["name"] for source in report["sources"]]
    assert "pid 1 (sh)" in names
    assert sum("sleep" in name for name in names) >= 1
    assert report["savings"]["within"] >= 298  # at most 256 share a page
    assert all(source["kind"] == "process" for source in report["sources"])


def test_the_program_itself():
    runner = CliRunner()
    assert runner.invoke(main, ["--version"], prog_name="ksm").output == f"ksm {ksm.__version__}\n"
    result = runner.invoke(main, ["--help"], prog_name="ksm")
    assert result.exit_code == 0
    assert "scan" in result.output
    result = runner.invoke(main, ["nonsense"], prog_name="ksm")
    assert (result.exit_code, result.stderr) == (2, "ksm: No such command 'nonsense'. (ksm --help)\n")


def test_without_a_command_the_help_is_shown():
    runner = CliRunner()
    result = runner.invoke(main, [], prog_name="ksm")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == runner.invoke(main, ["--help"], prog_name="ksm").stdout


def test_without_a_standard_output(images):
    result = command(*images, prefix=["sh", "-c", 'exec "$0" "$@" >&-'], stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (1, "ksm: standard output is closed\n")


@pytest.mark.parametrize("options", [[], ["--exact"], ["--as-passes", "--exact"]])
def test_a_stream_that_does_not_say_how_long_it_is(tmp_path, options):
    """Longer than the slack of a machine."""
    path = tmp_path / "image.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(80):
            file.write(bytes(1 << 20))
    sources = [str(path)] * (2 if "--as-passes" in options else 1)
    run = CliRunner().invoke(main, ["scan", "--zeros", "count", "--json", *options, *sources])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["pages"] == 80 * 256


@pytest.mark.parametrize(("limit", "options"), [(900000, ""), (1000000, ""), (1000000, "--exact")])
def test_a_stream_where_addresses_are_limited(limit, options):
    """As ulimit -v does: the machine takes what room there is, and leaves some to the rest of the program."""
    command = f"ulimit -v {limit}; head -c 16M /dev/zero | {sys.executable} -m ksm scan --zeros count --json --threads 2 {options} -"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(HOME)}, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["pages"] == 4096
