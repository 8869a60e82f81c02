# SPDX-License-Identifier: GPL-2.0-only
"""What is booted: packages of kernels, and the first file system of a guest. Guests themselves: tests/guests."""

import lzma
import shutil
import subprocess

import pytest
from commands import refused

from ksm.oracle import kernels
from ksm.oracle.generate_nodes import runs
from ksm.oracle.kernel import wrong_machine
from ksm.oracle.kernels import Archive, Kernel, initramfs, kernel_of, modules_of
from ksm.oracle.replay import run_port
from ksm.oracle.seeds import generate
from ksm.oracle.workload import OracleError


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


def test_the_newest_of_a_version(monkeypatch):
    names = ["linux-image-6.12.107+deb12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.99+deb12-cloud-amd64",
             "linux-image-6.12.120+deb12-cloud-amd64"]

    def answer(*words, folder=None):
        if words[0] == "apt-cache" and words[1] == "search":
            return "".join(f"{name} - Linux\n" for name in names)
        return "x:\n  Installed: (none)\n  Candidate: " + ("(none)" if "120" in words[2] else "6.12") + "\n"

    monkeypatch.setattr(kernels, "command", answer)
    assert kernels.newest("6.12") == "linux-image-6.12.117+deb12-cloud-amd64"
    names.clear()
    with pytest.raises(OracleError, match=r"apt knows no linux-image-6\.12\*-cloud-amd64"):
        kernels.newest("6.12")


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


def test_pages_by_the_frames_that_they_share():
    """As a kernel tells them that calls every anonymous page merged: a page that a fork shares has a number, too."""
    page = {"name": "v", "pages": 3, "contents": [1, 1, 2]}
    steps = [{"op": "scan", "passes": 3}, {"op": "fork", "proc": "a", "child": "b"}, {"op": "record"}]
    workload = {"name": "", "procs": [{"name": "a", "vmas": [page]}], "steps": steps}
    told, by_frames = (run_port(workload, pages=True, by_frames=how)["records"][-1]["pages"] for how in (False, True))
    assert told == {"a": {"v": [1, 1, "a"]}, "b": {"v": [1, 1, "a"]}}
    assert by_frames == {"a": {"v": [1, 1, 2]}, "b": {"v": [1, 1, 2]}}


@pytest.mark.parametrize("arguments, text", [
    (["--nodes", "2", "--seed", "0"], "--nodes is for --kernel"),
    (["--kernel", "6.12", "--against", "true", "--seed", "0"], "two things to compare with"),
    (["--kernel", "6.12", "--recorded", "--seed", "0"], "--recorded is for FILEs"),
])  # fmt: skip
def test_wrong_usage(arguments, text):
    assert text in refused("verify", *arguments, code=2)


def test_a_kernel_that_is_not_there(tmp_path):
    assert refused("verify", "--kernel", str(tmp_path), "--seed", "0", code=2) == f"ksm: {tmp_path}: 0 kernels in it, and not one"
