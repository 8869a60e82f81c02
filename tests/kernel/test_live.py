# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel and the port do the same. Runs as root, where no other program uses KSM; a file lock lets in one run at a time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ksm
from ksm.oracle import huge
from ksm.oracle.kernel import KSM, leaves_traces, run_kernel
from ksm.oracle.seeds import generate
from ksm.oracle.verify import verify
from ksm.oracle.workload import OracleError

pytestmark = pytest.mark.kernel

# Fixed seeds, so that what was equal once stays so. The first ones are part of every run.
ALWAYS, ALL = [*range(200), *range(1000, 1005)], range(1050)
SEEDS = [pytest.param(seed, marks=() if seed in ALWAYS else pytest.mark.slow) for seed in ALL]     # from 1000 on with huge pages

MERGEABLE = """
import mmap, sys
memory = mmap.mmap(-1, 1 << 16, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_MERGEABLE)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_same_as_the_running_kernel(seed, kernel_at_rest):
    assert kernel_at_rest(lambda: verify(generate(seed))) is None


def test_what_would_leave_traces_is_refused(kernel_at_rest):
    vma = {"name": "v", "pages": 1, "contents": [0]}
    workload = {"name": "", "settings": {"use_zero_pages": 1}, "procs": [{"name": "a", "vmas": [vma]}],
                "steps": [{"op": "madvise", "proc": "a", "vma": "v", "advice": "wipeonfork"}, {"op": "fork", "proc": "a", "child": "b"}]}
    assert leaves_traces(workload)
    with pytest.raises(OracleError, match="until the next boot"):
        run_kernel(workload)


def test_a_huge_page_that_cannot_be_had_is_no_outcome(kernel_at_rest, monkeypatch):
    """The kernel uses small pages then, of which some are untouched: their outcome cannot be compared. khugepaged's setting is put back."""
    workload = generate(1040)
    assert huge.wants_huge_pages(workload)
    if reason := huge.without_huge_pages():
        pytest.skip(reason)
    before = huge.SLEEP.read_text()
    kernel_at_rest(lambda: run_kernel(workload))
    monkeypatch.setattr(huge, "refused", iter([0, 1]).__next__)
    with pytest.raises(OracleError, match="a huge page could not be had"):
        run_kernel(workload)
    assert huge.SLEEP.read_text() == before


def settings():
    return {file.name: file.read_text() for file in KSM.iterdir() if file.stat().st_mode & 0o200}


def start(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(Path(ksm.__file__).resolve().parents[1])}
    return subprocess.Popen([sys.executable, "-m", "ksm", "verify", *arguments], env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, preexec_fn=listen_to_ctrl_c, **options)


def listen_to_ctrl_c():
    # A shell starts background commands with SIGINT ignored, and their children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_settings_are_restored_when_it_is_ended(number, kernel_at_rest):
    kernel_at_rest(lambda: verify(generate(0)))
    before = settings()
    with start("--seed", "0..100000") as process:
        for _ in range(3):
            assert process.stdout.readline().endswith("the same\n")
        deadline = time.monotonic() + 30
        while settings() == before:     # the command is between two workloads
            assert time.monotonic() < deadline
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else 130), error
    assert settings() == before


def test_refuses_to_run_beside_other_mergeable_processes(kernel_at_rest):
    kernel_at_rest(lambda: verify(generate(0)))
    before = settings()
    with subprocess.Popen([sys.executable, "-c", MERGEABLE], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "ready\n"
        with start("--seed", "0") as process:
            out, error = process.communicate(timeout=60)
        other.stdin.close()
    assert (process.returncode, out) == (2, "")
    assert error.startswith("ksm: random-0: other processes have mergeable memory: ")
    assert str(other.pid) in error
    assert settings() == before
