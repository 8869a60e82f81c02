# SPDX-License-Identifier: GPL-2.0-only
# The types of recorder.pyx.
from array import array

from typing_extensions import Self

from ksm.machine import Machine

KINDS_OF_STEP: int
COUNTERS: tuple[str, ...]

class Recorder:
    @property
    def words(self) -> array[int]: ...
    @property
    def labels(self) -> list[bytes]: ...
    def __new__(cls, of: Machine, most_steps: int) -> Self: ...
    @property
    def machine(self) -> Machine: ...
    def look(self) -> bool: ...
    def stop(self) -> tuple[int, bool]: ...
