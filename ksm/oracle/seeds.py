# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: random workloads.
"""The random workload of a seed."""

from __future__ import annotations

from ksm.oracle.generate import HUGE_SEEDS, Generator
from ksm.oracle.generate_huge import HugeGenerator
from ksm.oracle.generate_nodes import NodesGenerator
from ksm.oracle.workload import Json


def generate(seed: int, *, steps: int = 40, nodes: int = 1) -> Json:
    """The random workload of a seed, with about `steps` steps, for so many NUMA nodes. With a seed in HUGE_SEEDS it has huge pages."""
    if nodes > 1:
        return NodesGenerator(seed, nodes).workload(f"random-{seed}-nodes-{nodes}", steps)
    return (HugeGenerator if seed in HUGE_SEEDS else Generator)(seed).workload(f"random-{seed}", steps)
