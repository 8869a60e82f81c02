# SPDX-License-Identifier: GPL-2.0-only
# The types of record.pyx.
from array import array

from typing_extensions import Self

from ksm.machine import Machine

COUNTERS: tuple[str, ...]

class Recorder:
    words: array[int]
    labels: list[bytes]
    def __new__(cls, of: Machine, most_steps: int) -> Self: ...
    @property
    def machine(self) -> Machine: ...
    def look(self) -> bool: ...
    def stop(self) -> tuple[int, bool]: ...
