# SPDX-License-Identifier: GPL-2.0-only
"""The command `ksm sweep`, as a user calls it."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import commands
import pytest
from click.testing import CliRunner
from commands import write_image

import ksm
from ksm.cli.group import main

HOME = Path(ksm.__file__).resolve().parents[1]
invoke, refused = partial(commands.invoke, "sweep", "--cost", "2000"), partial(commands.refused, "sweep")


@pytest.fixture
def images(tmp_path):
    return [write_image(tmp_path / "one", [1] * 40 + [*range(2, 30)]), write_image(tmp_path / "other", [1] * 20 + [*range(20, 40)])]


def test_table(images):
    out, err = invoke("--vary", "max_page_sharing=2,256", *images)
    assert err == ""
    lines = out.splitlines()
    assert " ".join(lines[:2]).startswith("KSM would free 276.0 KiB of 432.0 KiB (63.9 %) with defaults, 100 % of what equal pages allow.")
    assert lines[3].split() == ["Setting", "saved", "of", "all", "settled", "passes", "CPU", "profit"]
    assert [line[:28].strip() for line in lines[4:10]] == [
        "max_page_sharing=2", "max_page_sharing=256", "* defaults", "* advisor_mode=scan-time", "ksmtuned, memory short",
        "ksmtuned, memory free",
    ]  # fmt: skip
    assert lines[4].split()[1] == "0.2"


def test_json(images):
    out, _ = invoke("--json", "--no-rules", "--vary", "use_zero_pages=0,1", "--vary", "era=6.12,6.1", *images)
    found = json.loads(out)
    assert [(row["era"], row["settings"]) for row in found["rows"]] == [
        (era, {"use_zero_pages": value}) for value in "01" for era in ("6.12", "6.1")
    ]
    scanned = json.loads(commands.invoke("scan", "--json", *images)[0])
    assert found["rows"][0]["ledger"] == scanned["ledger"]
    assert (found["bound"], found["cost"], found["measured"], found["asked"]) == (69, 2000.0, False, 4)
    assert {len(row["curve"]) for row in found["rows"]} == {3}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vary", "nothing=1"], "--vary: KSM has no nothing; there are"),
        (["--vary", "max_page_sharing=1"], "--vary: max_page_sharing=1: Invalid argument"),
        (["--vary", "max_page_sharing"], "max_page_sharing: it is written KNOB=VALUE,VALUE,..."),
        (["--vary", "max_page_sharing=2,,3"], "it is written KNOB=VALUE,VALUE,..."),
        (["--vary", "smart_scan=0", "--vary", "smart_scan=1"], "smart_scan is given twice: write smart_scan=0,1"),
        (["--era", "6.1", "--vary", "smart_scan=0,1"], "--vary: era 6.1: KSM has no smart_scan"),
        (["--cost", "0"], "0.0 is not in the range"),
        (["--cost", "nan"], "nan is not in the range"),
        (["--vary", "run=0,1"], "--vary: run: ksmd runs for every row"),
        (["--gentle", "--threads", "2"], "--gentle works with one thread"),
    ],
)
def test_wrong_usage(images, arguments, said):
    assert said in refused(*arguments, *images, code=2)


def test_no_such_file(tmp_path):
    assert refused(tmp_path / "missing") == f"ksm: {tmp_path / 'missing'}: No such file or directory"


def command(*arguments):
    return [sys.executable, "-m", "ksm", "sweep", *map(str, arguments)]


def test_ctrl_c_prints_what_is_done(tmp_path):
    """Rows that are done are printed, one line says that it was interrupted, and the exit code is 130."""
    path = write_image(tmp_path / "image", [number % 3000 for number in range(20000)])
    every = ",".join(map(str, range(2, 600)))
    environment = {**os.environ, "PYTHONPATH": str(HOME), "COLUMNS": "80"}
    with subprocess.Popen(
        command("--cost", "2000", "--no-rules", "--vary", f"max_page_sharing={every}", path), env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "ksm: interrupted\n")
    assert out == "" or out.startswith("Interrupted: ")


@pytest.mark.parametrize(
    ("variables", "bold"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": ""}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False),
     ({"TERM": "dumb"}, False)],
)  # fmt: skip
def test_colours(images, variables, bold):
    """Bold on a terminal that can do that and may."""
    result = CliRunner(env={"NO_COLOR": None, **variables}).invoke(main, ["sweep", "--cost", "2000", *images], color=True)
    assert ("\x1b[1m" in result.stdout) == bold


def test_on_a_terminal(images):
    """The lines fit, with LANG=C, too; the progress leaves nothing behind on standard output."""
    here, there = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(HOME), "COLUMNS": "50", "LANG": "C", "LC_ALL": "C", "TERM": "xterm"}
    process = subprocess.Popen(command("--cost", "2000", *images), env=environment, stdout=there, stderr=subprocess.DEVNULL)
    os.close(there)
    text = b""
    while True:
        try:
            some = os.read(here, 65536)
        except OSError:
            break
        text += some
    os.close(here)
    assert process.wait() == 0
    plain = text.replace(b"\x1b[1m", b"").replace(b"\x1b[0m", b"").decode()
    assert max(len(line) for line in plain.splitlines()) <= 50
