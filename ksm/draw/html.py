# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pictures of a machine.
"""What a notebook shows of a machine: its counters, and the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksm.draw.state import State, state_of
from ksm.draw.svg import svg_of

if TYPE_CHECKING:
    from ksm.machine import Machine

# Counters that are shown where the era has them
COUNTERS = ("full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages", "stable_node_chains",
            "general_profit")


def html(machine: Machine) -> str:
    """Machine._repr_html_()."""
    if machine.closed:
        return "<p>A machine that is closed</p>"
    state = state_of(machine)
    saved = f"{machine.memory >> 10:,} KiB of memory, {len(state.spaces) + state.more_processes:,} processes, KSM of Linux {machine.era}"
    return f"<div><p>{saved}</p>{table(state)}{svg_of(state)}</div>"


def table(state: State) -> str:
    shown = [(name, state.counters[name]) for name in COUNTERS if name in state.counters]
    heads = "".join(f"<th>{name}</th>" for name, _ in shown)
    values = "".join(f"<td>{value:,}</td>" for _, value in shown)
    return f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{values}</tr></tbody></table>"
