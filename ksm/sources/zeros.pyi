# SPDX-License-Identifier: GPL-2.0-only
# The types of zeros.pyx.
from typing_extensions import Buffer

from ksm.machine import Machine

def zero_runs(machine: Machine, start: int, words: Buffer) -> list[tuple[int, int]]: ...
