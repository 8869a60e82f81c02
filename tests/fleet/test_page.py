# SPDX-License-Identifier: GPL-2.0-only
"""docs/fleet.md shows what really happens, and its plan is what the script computes."""

import contextlib
import importlib.util
import io
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ksm.cli.group import main

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "fleet.md").read_text()
SIZE = re.compile(r" in [\d.]+ [KM]iB$", re.MULTILINE)  # how well a file is compressed depends on the library


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The folder of the example, with its images, and an empty folder fleet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet").mkdir()
    exec(compile(blocks()[0], "fleet.md", "exec"), {})
    return tmp_path


def blocks():
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands():
    """The commands of the example, what each prints, and on which host it is called."""
    text = PAGE.partition("<!-- ksm fleet: begin -->")[2].partition("<!-- ksm fleet: end -->")[0]
    parts = re.split(r"^    (alpha|beta)\$ ksm (.*)\n", text, flags=re.MULTILINE)
    for host, words, printed in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        yield host, words.split(), re.sub(r"^    ", "", printed, flags=re.MULTILINE).rstrip("\n")


def test_example(images, monkeypatch):
    """Each command prints what is shown, and perhaps more; the example in Python runs after them."""
    real = os.uname()
    found = list(commands())
    assert len(found) == 4
    for host, words, shown in found:
        named = os.uname_result((real[0], host, *real[2:]))
        monkeypatch.setattr(os, "uname", lambda named=named: named)
        done = CliRunner().invoke(main, words, prog_name="ksm", catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert SIZE.sub("", done.stdout).startswith(SIZE.sub("", shown)), done.stdout
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(blocks()[1], "fleet.md", "exec"), {})
    said = output.getvalue().splitlines()
    assert "900 pages are equal to pages of other hosts" in said
    assert "alpha:vm1.img beta:vm2.img 900" in said
    assert said[-1] == "['a', 'b', 'contents', 'alike']"


def test_plan_is_what_the_script_computes():
    path = ROOT / "benchmarks" / "fleet_plan.py"
    spec = importlib.util.spec_from_file_location("fleet_plan", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    shown = PAGE.partition("<!-- benchmarks/fleet_plan.py: begin -->\n")[2].partition("<!-- benchmarks/fleet_plan.py: end -->")[0]
    assert shown == script.table()
    one, many = script.plan(1 << 28), script.plan(1000 << 28, hosts=1000)
    assert (many.rows, many.spread, many.compare) == (1000 * one.rows, pytest.approx(1000 * one.spread), pytest.approx(1000 * one.compare))
    assert many.part * 200 <= script.WORKERS.memory
    workers = script.WORKERS
    assert many.hours >= (many.spread + many.compare) / (workers.number * workers.processors)
