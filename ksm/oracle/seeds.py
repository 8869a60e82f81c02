# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: random workloads.
"""The random workload of a seed."""

from __future__ import annotations

from ksm.oracle.generate import HUGE_SEEDS, Generator
from ksm.oracle.generate_huge import HugeGenerator
from ksm.oracle.workload import Json


def generate(seed: int, *, steps: int = 40) -> Json:
    """The random workload of a seed, with about `steps` steps. With a seed in HUGE_SEEDS it has huge pages."""
    return (HugeGenerator if seed in HUGE_SEEDS else Generator)(seed).workload(f"random-{seed}", steps)
