# SPDX-License-Identifier: GPL-2.0-only
"""What ksm fleet check says of a host is what the running kernel then does there; and docs/fleet-example.md with its guests."""

import json
import subprocess

import example
import guests
import pytest
import servers
from columns import compare
from commands import invoke
from running import Programs, scanned


@pytest.fixture(autouse=True)
def libraries():
    """Where these tests are left out, nothing says that they were skipped."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("numpy")


@pytest.mark.kernel
@pytest.mark.slow
def test_a_host_of_a_new_placement(running, program, tmp_path):
    """Two servers, each from another host, meet on one. What goes on being written to is little beside the rest."""
    path = program("redis-server", "redis-server")
    with running() as kernel, Programs() as programs:
        pids = servers.redis(programs, path, tmp_path)
        files = [tmp_path / f"rack{number}.parquet" for number in range(2)]
        for number, (pid, file) in enumerate(zip(pids, files, strict=True)):
            invoke("fingerprint", "--host", f"rack{number}", "-o", file, f"pid:{pid}")
        (tmp_path / "new.csv").write_text("source,host\n*,rack0\n")
        out, _ = invoke("fleet", "check", *files, "--placement", tmp_path / "new.csv", "--knobs", "running", "--json")
        hosts = {host["name"]: host for host in json.loads(out)["hosts"]}
        assert (len(hosts["rack0"]["sources"]), hosts["rack1"]["sources"]) == (2, [])
        report = scanned("--knobs", "running", *map(str, files))
        assert hosts["rack0"]["ledger"] == report["ledger"]
        assert hosts["rack0"]["ksm"] == report["ksm"]
        assert compare("ksm fleet check of a host", report, kernel.merge(pids)) == []


@pytest.mark.slow
def test_the_example_with_its_guests(program, lacks, tmp_path):
    """docs/fleet-example.md, whole: two guests that run the same Linux meet on a host, too."""
    qemu, busybox = program("qemu-system-x86_64", "qemu-system-x86 seabios"), program("busybox", "busybox-static")
    program("redis-server", "redis-server")
    if not guests.static(busybox):
        lacks("busybox needs libraries (Debian: busybox-static)")
    image = guests.kernel()
    if image is None:
        lacks("there is no kernel for a guest: KSM_GUEST_KERNEL names one (Debian: linux-image-cloud-amd64, unpacked)")
    (tmp_path / "guests").mkdir()
    with Programs() as programs:
        pids = guests.two_guests(programs, qemu, busybox, image, tmp_path / "guests", prctl=False, advised=True)
        environment = {**example.programs(tmp_path), "guest1": str(pids[0]), "guest2": str(pids[1])}
        shell = programs.start(
            "bash", "-c", example.script(guests=True), mergeable=False, env=environment, cwd=tmp_path, stderr=subprocess.STDOUT
        )
        output = ""
        for line in shell.stdout:
            output += line
            if line.startswith("- Fingerprints are of one moment"):
                break
    print(output)
    found = example.check_what_is_left(tmp_path, output, guests=2)
    hosts = [host for name, host in found["plan"]["placement"].items() if "qemu" in name]
    assert len(hosts) == 2
    assert len({*hosts}) == 1
