# SPDX-License-Identifier: GPL-2.0-only
# The types of copies.pyx.
from typing_extensions import Buffer

from ksm.machine import Machine

def copied_frames(machine: Machine, words: Buffer, wanted: Buffer) -> tuple[bytearray, int]: ...
