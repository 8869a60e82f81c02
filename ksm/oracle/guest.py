# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: another kernel, booted by QEMU.
"""The KSM of another kernel: a guest of QEMU that runs workloads.

The guest boots the kernel with this machine's root file system as its own, read-only, through virtiofs. It runs the same Python and the
same program as here, so nothing has to be installed in it. Workloads and outcomes go through a folder that both see. The port runs here.
Without KVM the guest is some ten times slower than this machine, and a boot takes about ten seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ksm.host.json_file import LARGEST, parse_json
from ksm.oracle.check import check_outcome
from ksm.oracle.kernels import initramfs, kernel_of
from ksm.oracle.ptrace import libc
from ksm.oracle.workload import Json, OracleError, Stalled

QEMU = "qemu-system-x86_64"
PR_SET_PDEATHSIG = 1
SERVERS = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "virtiofsd")
# The last version whose nodes may be without memory at the start. QEMU asks for its memory to be merged otherwise, and the kernel of this
# computer could not be compared meanwhile.
MACHINE = "pc-q35-5.0,memory-backend=m0,mem-merge=off"
APPEND = "console=ttyS0 panic=-1 quiet movable_node memhp_default_state=online_movable"
NODE, MODULE = 1 << 30, 1 << 28  # bytes of memory of node 0, and of each other node
BOOT = 240.0  # seconds
OUTCOME = 900.0
PAUSE = 0.02
TAIL = 300  # characters of the guest's last words


class Guest:
    """A guest with so many NUMA nodes. `run(workload)` is an outcome, with pages, and events where the kernel has them. OracleError."""

    def __init__(self, what: str, nodes: int = 1) -> None:
        self.nodes = nodes
        self.number = 0
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ksm-guest-")))
            self.exchange = self.folder / "exchange"
            self.exchange.mkdir()
            self.kernel = kernel_of(what, self.folder)
            for program in (QEMU, server()):
                if not shutil.which(program):
                    raise OracleError(f"{program} is missing (apt-get install qemu-system-x86)")
            (self.folder / "initramfs").write_bytes(initramfs(self.kernel))
            (self.exchange / "run").write_text(self.script())
            for name, source, options in (("root", "/", ["-o", "cache=always"]), ("exchange", str(self.exchange), ["-o", "cache=none"])):
                self.serve(stack, name, source, options)
            stack.callback(self.stop, self.boot(stack))
            self.wait("ready", BOOT)
            self.files: list[str] = parse_json((self.exchange / "ready").read_bytes())  # of KSM, in its kernel
            self.stack = stack.pop_all()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def script(self) -> str:
        """What the guest runs. Its root is read-only, except /run."""
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": "/run/tmp", "PYTHONDONTWRITEBYTECODE": "1",
                       "PATH": os.environ.get("PATH", os.defpath)}
        words = ["env", *(f"{name}={value}" for name, value in environment.items()),
                 sys.executable, "-m", "ksm.oracle", "serve", "/run/exchange"]
        return shlex.join(words) + "\n"

    def serve(self, stack: contextlib.ExitStack, name: str, source: str, options: list[str]) -> None:
        """Start a server of files for the guest."""
        socket = self.folder / f"{name}.socket"
        words = [server(), f"--socket-path={socket}", "-o", f"source={source}", "-o", "sandbox=chroot", *options]
        process = started(words, self.folder / f"{name}.log")
        stack.callback(end, process)
        deadline = time.monotonic() + 20
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise OracleError(f"{server()} has not started: {tail(self.folder / f'{name}.log')}")
            time.sleep(PAUSE)

    def boot(self, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        # Node 0 has what is there from the beginning. Each other node has a module that can be taken out, so its pages can all move.
        memory = ["-object", f"memory-backend-memfd,id=m0,size={NODE},share=on", "-numa", f"node,nodeid=0,cpus=0,mem={NODE >> 20}"]
        for node in range(1, self.nodes):
            memory += ["-numa", f"node,nodeid={node},mem=0", "-object", f"memory-backend-memfd,id=m{node},size={MODULE},share=on",
                       "-device", f"pc-dimm,id=dimm{node},memdev=m{node},node={node}"]
        files = []
        for name in ("root", "exchange"):
            files += ["-chardev", f"socket,id={name},path={self.folder / name}.socket",
                      "-device", f"vhost-user-fs-pci,chardev={name},tag={name}"]
        words = [QEMU, "-accel", "tcg", "-cpu", "max", "-machine", MACHINE, "-m", f"{NODE >> 20},slots={self.nodes},maxmem=16G", *memory,
                 *files, "-smp", "1", "-kernel", str(self.kernel.image), "-initrd", str(self.folder / "initramfs"), "-append", APPEND,
                 "-nographic", "-no-reboot", "-net", "none"]
        self.qemu = started(words, self.folder / "console")
        stack.callback(end, self.qemu)
        return self.qemu

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Have the guest switch itself off."""
        (self.exchange / "stop").touch()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)

    def wait(self, name: str, seconds: float) -> None:
        """Until the guest has made this file. Stalled if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not (self.exchange / name).exists():
            ended = self.qemu.poll() is not None or (self.exchange / "ended").exists()
            if ended or time.monotonic() > deadline:
                said = tail(self.exchange / "log") or tail(self.folder / "console")
                how = "ended" if ended else f"did not answer in {seconds:g} s"
                raise Stalled(f"the guest with Linux {self.kernel.release} {how}: {said}")
            time.sleep(PAUSE)

    def run(self, workload: Json) -> Json:
        """The outcome of a workload on the guest's kernel, with pages and events. OracleError."""
        self.number += 1
        write(self.exchange / f"{self.number}.workload", workload)
        name = f"{self.number}.outcome"
        self.wait(name, OUTCOME)
        path = self.exchange / name
        try:
            if path.stat().st_size > LARGEST:
                raise OracleError(f"the outcome in Linux {self.kernel.release} is too long")
            answer: Json = parse_json(path.read_bytes())
            if "error" in answer:
                raise (Stalled if answer.get("stalled") else OracleError)(f"Linux {self.kernel.release}: {answer['error']}")
            check_outcome(answer)
        except ValueError as error:
            raise OracleError(f"Linux {self.kernel.release}: not an outcome: {error}") from None
        path.unlink()
        return answer


class Guests:
    """Another kernel as a reference: a guest that is booted again after one has ended."""

    def __init__(self, what: str, nodes: int) -> None:
        self.what, self.nodes = what, nodes
        self.guest: Guest | None = None

    def __enter__(self) -> Guests:
        self.booted()  # at once: a kernel that cannot be had is found out before anything runs
        return self

    def __exit__(self, *_: object) -> None:
        if self.guest is not None:
            self.guest.stack.close()
            self.guest = None

    def booted(self) -> Guest:
        if self.guest is None:
            self.guest = Guest(self.what, self.nodes)
        return self.guest

    @property
    def files(self) -> list[str]:
        return self.booted().files

    def run(self, workload: Json) -> Json:
        try:
            return self.booted().run(workload)
        except Stalled:
            self.__exit__()
            raise


def server() -> str:
    """The program that serves files to a guest."""
    return next((program for program in SERVERS if shutil.which(program)), SERVERS[0])


def started(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process in a session of its own, whose output goes into a file. It ends with this one, also when this one is killed."""
    with log.open("wb") as out:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(path: Path) -> str:
    """The last words of a log, in one line."""
    with contextlib.suppress(OSError):
        return " ".join(path.read_text(errors="replace").split())[-TAIL:]
    return ""


def write(path: Path, value: Any) -> None:
    """A file that is there whole, or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


def serve(folder: Path) -> None:
    """In the guest: run the workloads that come into the folder, one after the other, until there is a file `stop`."""
    from ksm.oracle.kernel import KSM
    from ksm.oracle.verify import running_kernel

    write(folder / "ready", sorted(file.name for file in KSM.iterdir()) if KSM.is_dir() else [])
    number = 1
    while not (folder / "stop").exists():
        path = folder / f"{number}.workload"
        if not path.exists():
            time.sleep(PAUSE)
            continue
        try:
            answer = running_kernel(json.loads(path.read_text()), guest=True)
        except OracleError as error:
            answer = {"error": str(error), "stalled": isinstance(error, Stalled)}
        path.unlink()
        write(folder / f"{number}.outcome", answer)
        number += 1

