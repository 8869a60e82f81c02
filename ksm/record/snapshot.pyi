# SPDX-License-Identifier: GPL-2.0-only
# The types of snapshot.pyx.
from typing import TypedDict

from ksm.machine import Machine

_Rows = list[tuple[int, ...]]

class _Snapshot(TypedDict):
    counters: _Rows
    roots: _Rows
    links: _Rows
    nodes: _Rows
    items: _Rows
    entries: _Rows
    frames: _Rows
    mms: _Rows
    contents: list[bytes]

def snapshot(of: Machine) -> _Snapshot: ...
