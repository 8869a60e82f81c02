# SPDX-License-Identifier: GPL-2.0-only
"""A scan of guests that stand still, and one of their images, say the same, but for zeros that may not be there."""

import json
import socket

import guests
import pytest
from running import Programs, scanned

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
PARTS = ("within", "across", "merged", "unshared", "volatile")


class Monitor:
    """QEMU's, in JSON."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self.do("qmp_capabilities")

    def do(self, command, **arguments):
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            answer = json.loads(self.lines.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]


def test_guests_as_processes_and_as_images(program, lacks, tmp_path):
    """pmemsave and dump-guest-memory write zeros for what a guest never touched."""
    qemu = program("qemu-system-x86_64", "qemu-system-x86 seabios")
    busybox = program("busybox", "busybox-static")
    image = guests.kernel()
    if image is None:
        lacks("there is no kernel for a guest: KSM_GUEST_KERNEL names one (Debian: linux-image-cloud-amd64, unpacked)")
    with Programs() as programs:
        pids = guests.two_guests(programs, qemu, busybox, image, tmp_path, prctl=False, advised=True)
        monitors = [Monitor(f"{tmp_path}/console{number}.qmp") for number in (1, 2)]
        for number, monitor in enumerate(monitors):
            monitor.do("stop")
            monitor.do("pmemsave", val=0, size=guests.MIB << 20, filename=f"{tmp_path}/pmemsave{number}")
            monitor.do("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/dump{number}")
        found = {"live": scanned(*(f"pid:{pid}" for pid in pids), "--advised", "--interval", "0")["ledger"]}
    for form in ("pmemsave", "dump"):
        files = [f"{tmp_path}/{form}{number}" for number in (0, 1)]
        report = scanned(*files)
        found[form] = report["ledger"]
        assert all(source["zeros"] > 1000 for source in report["sources"])
    print()
    for name in PARTS:
        print(f"{name:10}", *(f"{form} {ledger[name]:,}" for form, ledger in found.items()), sep="   ")
    live = found.pop("live")
    for form, ledger in found.items():
        for name in PARTS:
            assert abs(ledger[name] - live[name]) <= 0.01 * (live["pages"] - live["zero"] - live["split"]), (form, name)
        assert abs(ledger["within"] + ledger["across"] - live["within"] - live["across"]) <= 0.01 * (live["within"] + live["across"]), form
