# SPDX-License-Identifier: GPL-2.0-only
"""ksm verify --forever without a kernel: the reference is the port, changed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import ksm
from ksm.cli.group import main
from ksm.oracle import forever, guest
from ksm.oracle.forever import Forever, first_seed
from ksm.oracle.guest import Guests
from ksm.oracle.huge import wants_huge_pages
from ksm.oracle.replay import run_port
from ksm.oracle.seeds import DRAWN, generate
from ksm.oracle.workload import OracleError, Stalled

PAIR = {"procs": [{"name": "a", "vmas": [{"name": "v", "pages": 2, "contents": [[7, 2]]}]}],
        "steps": [{"op": "record"}, {"op": "scan", "passes": 2}, {"op": "record"}]}


def draw(seed):
    return {"name": f"random-{seed}", **PAIR}


def port(workload):
    return run_port(workload, pages=True, events=True)


class Hunt:
    """A run over the seeds 0, 1, ... that ends before `seeds`. `reference` gets the seed, too."""

    def __init__(self, folder, reference, seeds, minutes=None):
        self.lines = []

        def limited(seed):
            if seed == seeds:
                raise KeyboardInterrupt
            return draw(seed)

        def called(workload):
            return reference(int(workload["name"].removeprefix("random-")), workload)

        self.forever = Forever(limited, called, folder / "found", self.lines.append)
        self.different = self.forever.run(0, minutes)
        self.files = {path.name: path.read_text() for path in (folder / "found").glob("*")}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(forever, "PAUSES", (0.0, 0.0, 0.0))


def test_nothing_differs(tmp_path):
    hunt = Hunt(tmp_path, lambda _seed, workload: port(workload), 3)
    assert (hunt.different, hunt.files) == (0, {})
    assert hunt.lines[0] == "from seed 0 on"
    assert hunt.lines[1].startswith("3 workloads in 0.0 minutes, seeds 0 to 3: 3 the same, 0 different, 0 stalls of the kernel")
    assert len(hunt.lines) == 2
    assert not (tmp_path / "found").exists()


def sharing_is_wrong(workload):
    """A kernel that counts one page more as soon as something is merged."""
    outcome = port(workload)
    for record in outcome["records"]:
        record["ksm"]["pages_sharing"] += record["ksm"]["pages_sharing"] > 0
    return outcome


def test_what_differs_is_made_smaller_and_kept(tmp_path):
    hunt = Hunt(tmp_path, lambda seed, workload: sharing_is_wrong(workload) if seed == 1 else port(workload), 3)
    assert hunt.different == 1
    assert set(hunt.files) == {"random-1.json", "random-1.whole.json", "random-1.txt"}
    assert json.loads(hunt.files["random-1.whole.json"]) == draw(1)
    assert json.loads(hunt.files["random-1.json"])["steps"] == [{"op": "scan", "passes": 2}]
    assert hunt.files["random-1.txt"].count("pages_sharing: kernel 2, port 1") == 2
    assert hunt.lines[-2] == f"random-1: 1 of 3 steps left, in {tmp_path / 'found' / 'random-1.json'}"
    assert "2 the same, 1 different" in hunt.lines[-1]


def test_a_difference_that_does_not_come_again(tmp_path):
    """The workload that was drawn is kept then."""
    calls = iter(range(1000))
    hunt = Hunt(tmp_path, lambda _seed, workload: sharing_is_wrong(workload) if next(calls) < 2 else port(workload), 1)
    assert json.loads(hunt.files["random-0.json"]) == draw(0)
    assert "smaller ones differs" in hunt.files["random-0.txt"]


def test_shrinking_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(forever, "SHRINK", 0.0)
    hunt = Hunt(tmp_path, lambda _seed, workload: sharing_is_wrong(workload), 2)
    assert hunt.different == 2
    assert json.loads(hunt.files["random-1.json"]) == draw(1)


def test_a_stall_is_counted_and_kept(tmp_path):
    def reference(seed, workload):
        if seed == 1:
            raise Stalled("ksmd does not come to rest")
        return port(workload)

    hunt = Hunt(tmp_path, reference, 3)
    assert hunt.different == 0
    assert "2 the same, 0 different, 1 stall of the kernel" in hunt.lines[-1]
    assert set(hunt.files) == {"random-1.whole.json", "random-1.txt"}
    assert hunt.files["random-1.txt"] == "ksmd does not come to rest\n"


def test_what_cannot_be_compared_again_and_again_ends_it(tmp_path):
    def reference(_seed, _workload):
        raise OracleError("other processes have mergeable memory: 7")

    with pytest.raises(OracleError, match="4 workloads in a row could not be compared; the last one: other processes"):
        Hunt(tmp_path, reference, 100)
    hunt = Hunt(tmp_path, lambda seed, workload: port(workload) if seed % 3 else reference(seed, workload), 9)
    assert "6 the same, 0 different, 0 stalls of the kernel, 3 not compared" in hunt.lines[-1]


def test_a_run_that_has_compared_nothing_is_no_success(tmp_path):
    """Too few for the end by themselves, but all of them."""
    def reference(seed, _workload):
        raise (Stalled if seed % 2 else OracleError)("a reason")

    with pytest.raises(OracleError, match="no workload could be compared; the last one: a reason"):
        Hunt(tmp_path, reference, 2)
    assert Hunt(tmp_path, reference, 0).different == 0


def test_a_port_that_fails_is_a_difference(tmp_path, monkeypatch):
    def broken(_workload, _reference):
        raise ZeroDivisionError("integer modulo by zero")

    monkeypatch.setattr(forever, "verify", broken)
    hunt = Hunt(tmp_path, lambda _seed, workload: port(workload), 1)
    assert hunt.different == 1
    assert "ZeroDivisionError: integer modulo by zero" in hunt.files["random-0.txt"]


def test_findings_that_cannot_be_written_end_it(tmp_path):
    (tmp_path / "found").write_text("a file")
    with pytest.raises(OSError, match="found"):
        Hunt(tmp_path, lambda _seed, workload: sharing_is_wrong(workload), 1)


def test_the_time_is_kept(tmp_path):
    began = time.monotonic()
    hunt = Hunt(tmp_path, lambda _seed, workload: port(workload), -1, minutes=0.005)
    assert 0.3 <= time.monotonic() - began < 5
    assert hunt.forever.same > 1


def test_seeds_are_new_and_some_have_huge_pages():
    seeds = {first_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(seed in DRAWN and seed + (1 << 32) in DRAWN for seed in seeds)
    start = seeds.pop()
    assert sum(wants_huge_pages(generate(seed)) for seed in range(start, start + 40)) == 2


def test_a_guest_that_has_ended_is_booted_again(monkeypatch):
    booted = []

    class Fake:
        def __init__(self, what, nodes):
            booted.append((what, nodes))
            self.stack = self
            self.files = ["run"]

        def run(self, workload):
            if workload == "stalls":
                raise Stalled("the guest did not answer")
            return len(booted)

        def close(self):
            booted.append("closed")

    monkeypatch.setattr(guest, "Guest", Fake)
    with Guests("6.12", 2) as guests:
        assert guests.files == ["run"]
        assert guests.run({}) == 1
        with pytest.raises(Stalled):
            guests.run("stalls")
        assert guests.run({}) == 3
    assert booted == [("6.12", 2), "closed", ("6.12", 2), "closed"]


@pytest.mark.parametrize("arguments", [
    ("--forever", "--seed", "1"), ("--minutes", "1", "--seed", "1"), ("--findings", "x", "--seed", "1"), ("--forever", "--minutes", "0"),
    ("--forever", "--minutes", "nan"), ("--forever", "--recorded"), ("--forever", __file__)])
def test_wrong_usage(arguments):
    result = CliRunner().invoke(main, ["verify", *arguments], prog_name="ksm")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("folder", ["/proc/none", "/proc/none/none", "/dev/null/none"])
def test_findings_that_will_have_no_place_are_refused_at_once(folder):
    result = CliRunner().invoke(main, ["verify", "--forever", "--findings", folder, "--against", "true"], prog_name="ksm")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be written to" in result.stderr


CHANGED = """
import json, sys
from ksm.oracle.replay import run_port
outcome = run_port(json.load(sys.stdin), pages=True, events=True)
outcome["records"][-1]["ksm"]["full_scans"] += CHANGE
print(json.dumps(outcome))
"""


@pytest.mark.parametrize("change", [0, 1])
def test_ctrl_c_ends_it_with_the_summary(tmp_path, change):
    (tmp_path / "kernel.py").write_text(CHANGED.replace("CHANGE", str(change)))
    home = str(Path(ksm.__file__).resolve().parents[1])
    words = ["env", f"PYTHONPATH={home}", sys.executable, "-m", "ksm", "verify", "--forever", "--steps", "1",
             "--against", f"{sys.executable} {tmp_path / 'kernel.py'}"]
    with subprocess.Popen(words, text=True, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as process:
        seed = int(process.stdout.readline().split()[2])
        if change:
            assert process.stdout.readline().startswith(f"random-{seed}: step ")
        else:
            time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (change, "")
    assert f"seeds {seed} to " in out.splitlines()[-1]
    assert (tmp_path / "ksm-verify-findings" / f"random-{seed}.whole.json").exists() == bool(change)
