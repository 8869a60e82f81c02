# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: which processes of this computer can be read.
"""Processes as sources: one of them, or all that the user may read."""

from __future__ import annotations

import os

from ksm.sources.base import Source, SourceDenied, SourceError, SourceGone
from ksm.sources.live import Host, KernelThread, LiveSource
from ksm.sources.mappings import Which
from ksm.sources.pagemap import same_memory


def open_process(pid: int, host: Host, *, which: Which = "prctl") -> LiveSource:
    """The source of one process. SourceError says why there is none."""
    if pid == os.getpid():
        raise SourceError(f"pid {pid}: that is this ksm")
    return LiveSource(pid, host, which=which)


def open_all(host: Host, *, which: Which = "prctl") -> tuple[list[Source], list[str]]:
    """All processes that may be read, except this one; and remarks on those that are left out."""
    sources: dict[int, LiveSource] = {}
    remarks: list[str] = []
    denied = same = 0
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if pid == os.getpid():
            continue
        try:
            source = LiveSource(pid, host, which=which)
        except SourceDenied:
            denied += 1
        except (SourceGone, KernelThread):
            pass
        except SourceError as error:
            remarks.append(f"skipped {error}")
        else:
            if source.parent in sources and same_memory(pid, source.parent):
                same += 1
            else:
                sources[pid] = source
    # One that was left out may keep frames, as may one that /proc does not show (hidepid hides process 1, too).
    host.whole = not denied and not remarks and os.path.exists("/proc/1")
    if denied:
        remarks.append(f"skipped, for lack of permission to read their memory: {denied:,} of the processes")
    if same:
        remarks.append(f"skipped, because they run in their parent's memory: {same:,} of the processes")
    return [*sources.values()], remarks
