# SPDX-License-Identifier: GPL-2.0-only
"""The KSM trace events of the running kernel, from a trace instance of our own."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from ksm.host.command import CommandError, output_of
from ksm.oracle.workload import OracleError

TRACING = Path("/sys/kernel/tracing")
LINE = re.compile(r"^.*? \d+\.\d+: (ksm_\w+|tracing_mark_write): (.*)$", re.M)
FIELD = re.compile(r"\b(mm|pfn|error|seq|size) (-?\w+)")


def has_events() -> bool:
    """Whether the kernel has trace events of KSM: since 6.6."""
    return not (TRACING / "events").exists() or (TRACING / "events/ksm").exists()


class Events:
    """A reader of trace events. Events have no addresses: a page is named after whoever mapped it before the scan."""

    def __init__(self) -> None:
        if not (TRACING / "instances").exists():
            try:
                output_of(["mount", "-t", "tracefs", "tracefs", str(TRACING)], 1 << 16)
            except CommandError as error:
                raise OracleError(f"{TRACING} cannot be mounted: {error}") from None
        self.dir = TRACING / "instances" / "ksm_oracle"
        self.dir.mkdir(exist_ok=True)  # the instance may be left from a run that was killed
        for name, value in {"buffer_size_kb": "16384", "trace_clock": "global", "trace": "", "events/ksm/enable": "1"}.items():
            (self.dir / name).write_text(value)
        self.pipe = os.open(self.dir / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        self.names: dict[str, str] = {}  # of address spaces
        self.who = ""

    def mark(self, process: str) -> None:
        """Name the process that events ksm_enter are about from now on."""
        (self.dir / "trace_marker").write_text("who " + process)

    def take(self, owners: dict[int, str]) -> list[list[Any]]:
        chunks = []
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.pipe, 1 << 16):
                chunks.append(chunk)
        text = b"".join(chunks).decode()
        if "LOST" in text:
            raise OracleError("trace events were lost")
        return [event for name, rest in LINE.findall(text) if (event := self.event(name, rest, owners))]

    def event(self, name: str, rest: str, owners: dict[int, str]) -> list[Any] | None:
        fields = dict(FIELD.findall(rest))
        if name == "tracing_mark_write":
            self.who = rest.removeprefix("who ")
            return None
        if name == "ksm_enter":
            self.names[fields["mm"]] = self.who
        event: list[Any] = [name.removeprefix("ksm_")]
        if "mm" in fields:
            event.append(self.names.get(fields["mm"], "?"))
        if "error" in fields:
            page = owners.get(int(fields["pfn"]), "?") if name != "ksm_merge_one_page" else "zero"
            event += ["ksm" if rest.startswith("ksm ") else "anon", page, int(fields["error"])]
        if "seq" in fields:
            event += [int(fields["seq"]), int(fields["size"])]
        return event

    def close(self) -> None:
        os.close(self.pipe)
        (self.dir / "events/ksm/enable").write_text("0")
        self.dir.rmdir()
