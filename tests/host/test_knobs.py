# SPDX-License-Identifier: GPL-2.0-only
"""The knobs of a kernel, from the files of its sysfs."""

import os

import pytest
from click.testing import CliRunner

from ksm.cli.group import main
from ksm.host import knobs


def test_what_the_files_have(tmp_path):
    for name, text in {"pages_to_scan": "250\n", "advisor_mode": "none [scan-time]\n", "sleep_millisecs": "20\n"}.items():
        (tmp_path / name).write_text(text)
    asked = ["pages_to_scan", "advisor_mode", "smart_scan"]
    assert knobs.running_knobs(asked, str(tmp_path)) == {"pages_to_scan": "250", "advisor_mode": "scan-time"}
    assert knobs.chosen("[none] scan-time") == "none"


def test_a_kernel_without_ksm(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        knobs.running_knobs(["run"], str(tmp_path / "ksm"))
    monkeypatch.setattr(knobs, "RUNNING", str(tmp_path / "ksm"))
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 14))
    run = CliRunner().invoke(main, ["scan", "--knobs", "running", str(image)])
    assert (run.exit_code, run.output) == (1, f"ksm: --knobs running: {tmp_path / 'ksm'}: No such file or directory\n")


@pytest.mark.skipif(not os.path.isdir(knobs.RUNNING), reason="this kernel has no KSM")
def test_the_running_kernels(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 14))
    run = CliRunner().invoke(main, ["scan", "--knobs", "running", "--set", "pages_to_scan=777", str(image)])
    assert run.exit_code == 0
    with open(f"{knobs.RUNNING}/sleep_millisecs") as file:
        assert f"(pages_to_scan 777, sleep_millisecs {file.read().strip()})" in " ".join(run.output.split())
