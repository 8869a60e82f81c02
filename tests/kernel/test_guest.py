# SPDX-License-Identifier: GPL-2.0-only
"""What is booted: packages of kernels, and the first file system of a guest. Guests themselves: tests/guests."""

import lzma
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import refused

import ksm
from ksm.oracle import kernels, packages
from ksm.oracle.generate_breaking import BREAKING_SEEDS
from ksm.oracle.generate_nodes import runs
from ksm.oracle.kernel import run_kernel, wrong_machine
from ksm.oracle.kernels import Archive, Kernel, initramfs, kernel_of, modules_of
from ksm.oracle.packages import find
from ksm.oracle.proc import proc_text
from ksm.oracle.process import memory_in
from ksm.oracle.replay import run_port
from ksm.oracle.seeds import fitting, generate
from ksm.oracle.verify import era_of
from ksm.oracle.workload import BREAKING, OracleError


def module(depends):
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


@pytest.fixture
def folder(tmp_path):
    """An unpacked package whose kernel has virtiofs and zram as modules."""
    home = tmp_path / "package"
    modules = home / "lib/modules/6.1.0-test/kernel/fs"
    modules.mkdir(parents=True)
    (home / "boot").mkdir()
    (home / "boot/vmlinuz-6.1.0-test").write_bytes(b"kernel")
    (modules / "virtiofs.ko").write_bytes(module("fuse"))
    (modules / "fuse.ko.xz").write_bytes(lzma.compress(module("")))
    (modules / "zram.ko").write_bytes(module("lzo-core,zsmalloc"))
    (modules / "zsmalloc.ko").write_bytes(module(""))
    return home


def test_a_kernel_in_a_folder(folder, tmp_path):
    kernel = kernel_of(str(folder), tmp_path)
    assert kernel == Kernel(folder / "boot/vmlinuz-6.1.0-test", folder / "lib/modules/6.1.0-test", "6.1.0-test")
    assert [name for name, _ in modules_of(kernel)] == ["fuse", "virtiofs", "zsmalloc", "zram"]
    assert dict(modules_of(kernel))["fuse"] == module("")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is missing")
def test_a_kernel_in_a_package(folder, tmp_path):
    (folder / "DEBIAN").mkdir()
    control = "Package: linux-image-test\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
    (folder / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "-b", folder, tmp_path / "package.deb"], check=True, capture_output=True)
    assert kernel_of(str(tmp_path / "package.deb"), tmp_path / "new").release == "6.1.0-test"
    (tmp_path / "damaged.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(OracleError, match="dpkg-deb"):
        kernel_of(str(tmp_path / "damaged.deb"), tmp_path / "newer")


def test_what_is_no_kernel(folder, tmp_path):
    with pytest.raises(OracleError, match="0 kernels in it, and not one"):
        kernel_of(str(tmp_path), tmp_path)
    with pytest.raises(OracleError, match="neither a package of a kernel nor a folder with one"):
        kernel_of(str(folder / "boot/vmlinuz-6.1.0-test"), tmp_path)
    for name in ("no such file", "../x", "-x", ""):
        with pytest.raises(OracleError, match=r"there is no such file|0 kernels"):
            kernel_of(name or str(tmp_path), tmp_path)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is missing")
def test_a_kernel_in_several_packages(tmp_path):
    """Since 6.19, linux-image-* is empty, and its modules are in usr/lib."""
    release = "7.3.0-test"
    modules = tmp_path / "contents/modules/usr/lib/modules" / release
    (modules / "kernel").mkdir(parents=True)
    (modules / "kernel/fuse.ko.xz").write_bytes(lzma.compress(module("")))
    (tmp_path / "contents/binary/usr/lib/modules" / release).mkdir(parents=True)
    (tmp_path / "contents/binary/usr/lib/modules" / release / "vmlinuz").write_bytes(b"kernel")
    needs = f"linux-initramfs-tool, linux-base-{release} (= 1), linux-binary-{release} (= 1), linux-modules-{release} (= 1)"
    for part, depends in (("image", needs), ("binary", "linux-base"), ("modules", "kmod")):
        (tmp_path / "contents" / part / "DEBIAN").mkdir(parents=True)
        control = f"Package: linux-{part}-{release}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
        (tmp_path / "contents" / part / "DEBIAN/control").write_text(f"{control}Depends: {depends}\n")
        subprocess.run(["dpkg-deb", "-b", tmp_path / "contents" / part, tmp_path / f"linux-{part}-{release}_1_all.deb"], check=True,
                       capture_output=True)
    kernel = kernel_of(str(tmp_path / f"linux-image-{release}_1_all.deb"), tmp_path / "new")
    assert kernel.release == release
    assert kernel.image.read_bytes() == b"kernel"
    assert [path.name for path in kernel.modules.glob("kernel/*")] == ["fuse.ko.xz"]


def test_the_newest_of_a_version(monkeypatch, tmp_path):
    names = ["linux-image-6.12.107+deb12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.99+deb12-cloud-amd64",
             "linux-image-6.12.120+deb12-cloud-amd64"]

    newer = ["linux-image-7.3.4+deb13-cloud-amd64"]
    sites = ["http://mirror/debian"]
    updates = []

    def answer(*words, folder=None):
        options, words = words[:-1], words[-1]
        if "indextargets" in options:
            return "".join(f"{site}\n" for site in sites)
        if "update" in (*options, words):
            updates.append(options)
            return ""
        there = newer if any("Dir::State::lists=" in word for word in options) else names
        if "search" in options:
            return "".join(f"{name} - Linux\n" for name in there if re.match(words, name))
        return "x:\n  Installed: (none)\n  Candidate: " + ("(none)" if "120" in words else "6.12") + "\n"

    monkeypatch.setattr(packages, "command", answer)
    assert find("6.12", tmp_path) == ("linux-image-6.12.117+deb12-cloud-amd64", ())
    assert find("linux-image-6.12.99+deb12-cloud-amd64", tmp_path) == ("linux-image-6.12.99+deb12-cloud-amd64", ())
    assert updates == []
    for _ in range(2):
        name, options = find("7.3", tmp_path)
        assert name == newer[0]
        assert f"Dir::State::lists={tmp_path}/trixie-backports/lists" in options
        assert (tmp_path / "trixie-backports/sources.list").read_text().endswith("http://mirror/debian trixie-backports main\n")
    assert len(updates) == 1            # its list is read once
    for wanted, said in (("9.9", r"apt knows no linux-image-9\.9\*-cloud-amd64; .*: trixie-backports has no such package"),
                         ("linux-image-9", r"apt knows no linux-image-9; ")):
        with pytest.raises(OracleError, match=said):
            find(wanted, tmp_path)
    sites.clear()
    with pytest.raises(OracleError, match="trixie-backports: apt has no mirror of Debian"):
        find("9.9", tmp_path / "other")


@pytest.mark.skipif(not shutil.which("cpio"), reason="cpio is missing")
def test_the_archive_is_one_that_cpio_reads():
    archive = Archive()
    archive.add("folder", 0o40755)
    archive.add("folder/file", 0o100644, b"abc")
    archive.add("link", 0o120777, b"folder/file")
    listed = subprocess.run(["cpio", "-tv"], input=archive.end(), capture_output=True, check=True).stdout.decode().splitlines()
    assert [line.split()[0] for line in listed] == ["drwxr-xr-x", "-rw-r--r--", "lrwxrwxrwx"]
    assert [line.split()[4] for line in listed[:2]] == ["0", "3"]
    assert listed[2].endswith("link -> folder/file")


def test_busybox_is_wanted(folder, tmp_path, monkeypatch):
    kernel = kernel_of(str(folder), tmp_path)
    program = tmp_path / "busybox"
    monkeypatch.setattr(kernels.shutil, "which", lambda name: str(program))
    program.write_bytes(b"\x7fELF" + b"/lib64/ld-linux-x86-64.so.2")
    with pytest.raises(OracleError, match="has to be a static one"):
        initramfs(kernel)
    program.write_bytes(b"\x7fELF static")
    archive = initramfs(kernel)
    assert archive.startswith(b"070701")
    assert b"modules/03-zram.ko" in archive
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    with pytest.raises(OracleError, match="busybox is missing"):
        initramfs(kernel)


def test_workloads_of_several_nodes():
    """They ask for their nodes, pages migrate, and merge_across_nodes does not change: the kernel would follow stale links."""
    kinds = set()
    for seed in range(40):
        workload = generate(seed, nodes=2)
        assert workload["nodes"] == 2
        assert wrong_machine({**workload, "nodes": 1}) == ""
        assert "merge_across_nodes" not in {step.get("file") for step in workload["steps"]}
        kinds |= {(workload["settings"]["merge_across_nodes"], step["node"]) for step in workload["steps"] if step["op"] == "migrate"}
        if seed < 5:
            assert run_port(workload)["records"]
    assert kinds == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert generate(3, nodes=1) == generate(3)
    assert runs([True, False, True, True]) == [(0, 1), (2, 2)]


def test_workloads_whose_memory_goes_and_breaks():
    """Seeds of their own, for guests. The others stay as they are."""
    kinds, killed, errors = set(), 0, set()
    for seed in BREAKING_SEEDS[:25]:
        workload = generate(seed, nodes=2)
        steps = workload["steps"]
        kinds |= {(step["op"], step.get("by")) for step in steps if step["op"] in BREAKING}
        assert {step["node"] for step in steps if step["op"] in ("offline", "online")} <= {1}
        assert {step["node"] for step in steps if step["op"] in ("soft_offline", "hwpoison")} <= {0}
        assert "swap" not in workload or "hwpoison" not in {step["op"] for step in steps}
        if seed < 2010:
            records = run_port(workload, pages=True)["records"]
            killed += sum(len(record.get("killed", ())) for record in records)
            errors |= {record.get("error") for record in records if "sysfs" not in record}
    assert kinds == {("offline", None), ("online", None), ("soft_offline", "frame"), ("soft_offline", "madvise"), ("hwpoison", "frame"),
                     ("hwpoison", "madvise")}
    assert killed
    assert "ESRCH" in errors
    assert not any(step["op"] in BREAKING for seed in range(40) for step in generate(seed, nodes=2)["steps"])


@pytest.mark.parametrize("op", BREAKING)
def test_only_a_guest_breaks_frames(op):
    step = {"op": op, "node": 1} if op.endswith("line") and op != "soft_offline" else {"op": op, "proc": "a", "vma": "v"}
    workload = {"procs": [{"name": "a", "vmas": [{"name": "v", "pages": 1}]}], "steps": [step]}
    assert "only a guest does that" in wrong_machine(workload)
    assert wrong_machine(workload, guest=True) == ""
    with pytest.raises(OracleError):
        run_kernel(workload)


def life(*steps, **more):
    """The records of some steps on two nodes, of a process `a` with equal pages in `v`, and of `b` with one."""
    procs = [{"name": name, "vmas": [{"name": "v", "pages": pages, "contents": [[1, pages]], "slot": 0}]}
             for name, pages in (("a", 3), ("b", 1))]
    return run_port({"procs": procs, "steps": list(steps), "nodes": 2, **more}, pages=True)["records"]


RECORD, SCAN = {"op": "record"}, {"op": "scan", "passes": 3}


def test_who_is_killed():
    """Each process once, at the place that was merged last. What is left of a workload goes on without them."""
    fork = {"op": "fork", "proc": "a", "child": "c"}
    records = life(SCAN, fork, {"op": "hwpoison", "proc": "b", "vma": "v"}, {"op": "touch", "proc": "a", "vma": "v"},
                   {"op": "fork", "proc": "c", "child": "d"}, {"op": "exit", "proc": "d"}, RECORD)
    assert [record for record in records if "ksm" not in record] == [
        {"step": 2, "killed": {"a": "0x2000", "b": "0x0", "c": "0x2000"}}, *({"step": step, "error": "ESRCH"} for step in (3, 4, 5))]
    assert records[-1]["procs"] == {}
    # By the frame of a page that others do not have, the others stay.
    records = life({"op": "hwpoison", "proc": "a", "vma": "v", "page": 2, "by": "madvise"}, RECORD)
    assert records[0] == {"step": 0, "killed": {"a": "0x2000"}}
    assert set(records[-1]["procs"]) == {"b"}
    # No page, or none of this node
    records = life({"op": "madvise", "proc": "a", "vma": "v", "advice": "dontneed"}, {"op": "hwpoison", "proc": "a", "vma": "v"},
                   *({"op": op, "proc": "b", "vma": "v", "node": 1} for op in ("hwpoison", "soft_offline")), RECORD)
    assert [record.get("killed") for record in records] == [{}, {}, None]


def test_memory_goes_and_comes_back():
    migrate = {"op": "migrate", "proc": "a", "vma": "v", "node": 1}
    online, offline = {"op": "online", "node": 1}, {"op": "offline", "node": 1}
    records = life(online, migrate, RECORD, offline, RECORD, offline, migrate, online, migrate, RECORD)
    assert [(record["step"], record["error"]) for record in records if "error" in record] == [(0, "EINVAL"), (5, "EINVAL"), (6, "ENODEV")]
    assert [record["nodes"]["a"]["v"] for record in records if "nodes" in record] == [[1] * 3, [0] * 3, [1] * 3]
    with pytest.raises(OracleError, match="no node 2"):
        life({"op": "offline", "node": 2})


def test_memory_in_use_after_each_step():
    dontneed = {"op": "madvise", "proc": "a", "vma": "v", "count": 1, "advice": "dontneed"}
    records = life(dontneed, {"op": "fork", "proc": "a", "child": "c"}, {"op": "exec", "proc": "a"}, RECORD, {"op": "exit", "proc": "c"},
                   SCAN)
    assert records[0]["rss"] == [[0, "a", 8192], [1, "a", 8192], [1, "c", 8192], [2, "a", 0]]
    assert not any("rss" in record for record in records[1:])


def test_pages_by_the_frames_that_they_share():
    """As a kernel tells them that calls every anonymous page merged: a page that a fork shares has a number, too."""
    page = {"name": "v", "pages": 3, "contents": [1, 1, 2]}
    steps = [{"op": "scan", "passes": 3}, {"op": "fork", "proc": "a", "child": "b"}, {"op": "record"}]
    workload = {"name": "", "procs": [{"name": "a", "vmas": [page]}], "steps": steps}
    told, by_frames = (run_port(workload, pages=True, by_frames=how)["records"][-1]["pages"] for how in (False, True))
    assert told == {"a": {"v": [1, 1, "a"]}, "b": {"v": [1, 1, "a"]}}
    assert by_frames == {"a": {"v": [1, 1, 2]}, "b": {"v": [1, 1, 2]}}


SMAPS = """200000000000-200000003000 rw-p 00000000 00:00 0
Size: 12 kB
Rss: 8 kB
Anonymous: 8 kB
{}AnonHugePages: 0 kB
Swap: 4 kB
VmFlags: rd wr mg
"""


def test_smaps_of_kernels_that_do_not_know_ksm():
    assert memory_in(SMAPS.format("KSM: 4 kB\n")) == {"smaps": [8192, 8192, 4096, 4096], "anon_huge_pages": 0}
    assert memory_in(SMAPS.format("")) == {"anon_huge_pages": 0}


@pytest.mark.parametrize("release, era", [
    ("6.18.44", "6.12"), ("6.12.117+deb12-cloud-amd64", "6.12"), ("6.8.0", "6.12"), ("6.1.0-56-cloud-amd64", "6.1"), ("5.15.0", "6.1"),
    ("2.6.38", "2.6.38"), ("", "6.12"), ("7.2.12+deb13-cloud-amd64", "6.12"), ("7.3.4+deb13-cloud-amd64", "7.3"),
])  # fmt: skip
def test_the_era_of_a_kernel(release, era):
    assert era_of({"kernel": release}) == era


def test_a_workload_for_a_kernel_without_some_knobs():
    """Nothing that the kernel refuses is left, and the port of this era takes it."""
    with ksm.Machine("1M", era="6.1") as machine:
        files = machine.ksm.names()
    for seed in range(30):
        workload = fitting(generate(seed), files)
        assert set(workload["settings"]) <= set(files)
        assert {step["file"] for step in workload["steps"] if step["op"] == "sysfs"} <= set(files)
        assert fitting(workload, files) == workload
        if seed < 5:
            assert run_port(workload, era="6.1")["records"]


def test_a_pass_of_several_batches_without_pages_scanned():
    """The port of 6.1 comes to the end of a pass, whatever the size of its batches; nothing registered is a stall."""
    page = {"name": "v", "pages": 10, "contents": [1] * 10, "mergeable": True}
    steps = [{"op": "sysfs", "file": "pages_to_scan", "value": 3}, {"op": "scan", "passes": 3}]
    records = run_port({"name": "", "procs": [{"name": "a", "vmas": [page]}], "steps": steps}, era="6.1")["records"]
    assert [(record["batches"], record["ksm"]["pages_sharing"]) for record in records[1:]] == [(4, 0), (4, 9), (4, 9)]
    assert "stalled" not in records[-1]
    records = run_port({"name": "", "procs": [{"name": "a", "vmas": [{**page, "mergeable": False}]}], "steps": steps}, era="6.1")["records"]
    assert all(record["stalled"] for record in records[1:])


@pytest.mark.parametrize("arguments, text", [
    (["--nodes", "2", "--seed", "0"], "--nodes is for --kernel"),
    (["--kernel", "6.12", "--against", "true", "--seed", "0"], "two things to compare with"),
    (["--kernel", "6.12", "--recorded", "--seed", "0"], "--recorded is for FILEs"),
])  # fmt: skip
def test_wrong_usage(arguments, text):
    assert text in refused("verify", *arguments, code=2)


def test_a_kernel_that_is_not_there(tmp_path):
    assert refused("verify", "--kernel", str(tmp_path), "--seed", "0", code=2) == f"ksm: {tmp_path}: 0 kernels in it, and not one"


STARTS = """
import sys, time
from pathlib import Path
from ksm.oracle.guest import started
print(started(["sleep", "60"], Path(sys.argv[1])).pid, flush=True)
time.sleep(60)
"""


def test_a_guest_ends_with_a_run_that_is_killed(tmp_path):
    """Nobody else would end it."""
    words = ["env", f"PYTHONPATH={Path(ksm.__file__).resolve().parents[1]}", sys.executable, "-c", STARTS, tmp_path / "log"]
    with subprocess.Popen(words, text=True, stdout=subprocess.PIPE) as process:
        stat = Path("/proc", process.stdout.readline().strip(), "stat")
        assert stat.exists()
        process.kill()
    deadline = time.monotonic() + 5
    while (text := proc_text(stat)) and text.rpartition(") ")[2][0] not in "ZX":
        assert time.monotonic() < deadline
        time.sleep(0.01)
