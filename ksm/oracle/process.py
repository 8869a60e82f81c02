# SPDX-License-Identifier: GPL-2.0-only
"""The real processes of a workload on the kernel: each maps, writes, forks ... on command."""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import re
import select
import signal
import socket
import struct
from pathlib import Path
from typing import Any, NoReturn

from ksm.oracle.workload import PAGE, PLACES, Json, OracleError, Task, errno_name, expand, page_bytes

TIMEOUT = 120.0
ADVICE = {"dontneed": 4, "dontfork": 10, "dofork": 11, "mergeable": 12, "unmergeable": 13, "hugepage": 14, "nohugepage": 15,
          "wipeonfork": 18, "keeponfork": 19}
MREMAP_MAYMOVE_FIXED, MAP_FIXED_NOREPLACE = 3, 0x100000
# A mapping in /proc/PID/smaps: its start; kB in memory, anonymous, merged, swapped out.
SMAPS = re.compile(
    r"^([0-9a-f]+)-.*\n" + "".join(rf"(?:\w+:.*\n)*?{name}: +(\d+) kB\n" for name in ("Rss", "Anonymous", "KSM", "Swap")), re.M
)
PM_PRESENT, PM_PFN = 1 << 63, (1 << 55) - 1
KPF_KSM, KPF_ZERO_PAGE = 1 << 21, 1 << 24


def checked(name: str, *args: int) -> None:
    """Call a function of the C library with words as arguments; OSError if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, name)
    function.restype = ctypes.c_long
    if function(*map(ctypes.c_long, args)) == -1:
        raise OSError(ctypes.get_errno(), name)


class Channel:
    """The connection of one process, made before any fork; a message is a line."""

    def __init__(self) -> None:
        self.ends = socket.socketpair()
        self.ends[0].settimeout(TIMEOUT)
        self.files = [end.makefile("rw") for end in self.ends]

    def send(self, end: int, message: Any) -> None:
        self.files[end].write(json.dumps(message) + "\n")
        self.files[end].flush()

    def receive(self, end: int) -> Any:
        line = self.files[end].readline()
        if not line:
            raise OracleError("a workload process died")
        return json.loads(line)

    def close(self, end: int) -> None:
        self.files[end].close()
        self.ends[end].close()


class Mapper:
    """What a process of the workload does; runs in that process, one command at a time."""

    def __init__(self, name: str, channels: dict[str, Channel]) -> None:
        self.name, self.channels = name, channels
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for channel in channels.values():  # so that the death of the controller is noticed
            channel.close(0)

    def serve(self) -> NoReturn:
        while True:
            op, args = self.channels[self.name].receive(1)
            try:
                answer = getattr(self, op)(**args) or {}
            except OSError as error:
                answer = {"error": errno_name(error)}
            except Exception as error:  # of the workload's author
                answer = {"error": repr(error)}
            self.channels[self.name].send(1, answer)

    def mmap(self, addr: int, pages: int, contents: list[Any], mergeable: bool) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        checked("mmap", addr, pages * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        self.madvise(addr, pages, "nohugepage")
        self.write(addr, pages, contents)
        if mergeable:
            self.madvise(addr, pages, "mergeable")

    def write(self, addr: int, count: int, contents: list[Any]) -> None:
        for number, content in zip(range(count), expand(contents), strict=False):
            if content is not None:
                ctypes.memmove(addr + number * PAGE, page_bytes(content), PAGE)

    def touch(self, addr: int, count: int) -> None:
        for page in range(addr, addr + count * PAGE, PAGE):
            ctypes.memmove(page, ctypes.string_at(page, 1), 1)

    def read(self, addr: int, count: int) -> None:
        for page in range(addr, addr + count * PAGE, PAGE):
            ctypes.string_at(page, 1)

    def madvise(self, addr: int, count: int, advice: str) -> None:
        checked("madvise", addr, count * PAGE, ADVICE[advice])

    def mprotect(self, addr: int, count: int, prot: int) -> None:
        checked("mprotect", addr, count * PAGE, prot)

    def munmap(self, addr: int, count: int) -> None:
        checked("munmap", addr, count * PAGE)

    def mremap(self, addr: int, old: int, new: int, to: int) -> None:
        checked("mremap", addr, old * PAGE, new * PAGE, MREMAP_MAYMOVE_FIXED if to != addr else 0, to)

    def fork(self, child: str) -> Json:
        if pid := os.fork():
            return {"pid": pid}
        self.name = child
        return {}  # the child's first message

    def exit(self) -> NoReturn:
        os._exit(0)


class RealTask(Task):
    """The controller's view of a process."""

    def __init__(self, name: str, channels: dict[str, Channel], pid: int = 0, parent: Task | None = None) -> None:
        super().__init__(parent)
        self.channels, self.channel = channels, channels[name]
        self.pid = pid or self.start(name)
        self.pidfd = os.pidfd_open(self.pid)

    def start(self, name: str) -> int:
        if pid := os.fork():
            return pid
        try:
            Mapper(name, self.channels).serve()
        finally:
            os._exit(1)  # the controller is gone: do nothing that only it must do

    def call(self, op: str, **args: Any) -> Json:
        if op in ("poke", "peek"):
            try:
                getattr(self, op)(**args)
            except OSError as error:
                return {"error": errno_name(error)}
            return {}
        self.channel.send(0, [op, args])
        end = self.channel.ends[0].fileno()
        if end not in select.select([end, self.pidfd], [], [], TIMEOUT)[0]:
            raise OracleError(f"a workload process does not survive: {op} {args}")
        answer: Json = self.channel.receive(0)
        return answer

    def poke(self, addr: int, count: int, contents: list[Any]) -> None:
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as file:
            for number, content in zip(range(count), expand(contents), strict=False):
                if content is not None:
                    os.pwrite(file.fileno(), page_bytes(content), addr + number * PAGE)

    def peek(self, addr: int, count: int) -> None:
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as file:
            for page in range(addr, addr + count * PAGE, PAGE):
                os.pread(file.fileno(), 1, page)

    def fork(self, child: str) -> RealTask:
        answer = self.call("fork", child=child)
        if "error" in answer:
            raise OracleError(f"fork: {answer['error']}")
        self.channels[child].receive(0)
        return RealTask(child, self.channels, answer["pid"], self)

    def exit(self) -> None:
        self.channel.send(0, ["exit", {}])
        self.wait()

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # it has exited
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.wait()

    def wait(self) -> None:
        """Until the process has exited; its memory is gone before that can be seen."""
        if not select.select([self.pidfd], [], [], TIMEOUT)[0]:
            raise OracleError("a workload process does not exit")
        os.close(self.pidfd)

    def stat(self) -> Json:
        proc = Path(f"/proc/{self.pid}")
        stat = dict(line.replace(":", "").split() for line in (proc / "ksm_stat").read_text().splitlines())
        stat["ksm_merging_pages_file"] = (proc / "ksm_merging_pages").read_text()
        found = SMAPS.findall((proc / "smaps").read_text())
        smaps = [[int(kb) << 10 for kb in sizes] for start, *sizes in found if int(start, 16) in PLACES]
        counts: Json = {key: value if value in ("yes", "no") else int(value) for key, value in stat.items()}
        return {**counts, "smaps": [sum(sizes) for sizes in zip(*smaps, strict=True)]}

    def pages(self, addr: int, count: int, kinds: bool) -> list[tuple[int, str]]:
        with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as file:
            data = os.pread(file.fileno(), count * 8, addr // PAGE * 8)
        frames = [entry & PM_PFN if entry & PM_PRESENT else -1 for (entry,) in struct.iter_unpack("<Q", data)]
        if not kinds:
            return [(frame, "a") for frame in frames]
        with open("/proc/kpageflags", "rb", buffering=0) as file:
            return [(frame, frame_kind(file.fileno(), frame)) for frame in frames]


def frame_kind(kpageflags: int, frame: int) -> str:
    if frame < 0:
        return "-"
    flags = struct.unpack("<Q", os.pread(kpageflags, 8, frame * 8))[0]
    return "0" if flags & KPF_ZERO_PAGE else "k" if flags & KPF_KSM else "a"
