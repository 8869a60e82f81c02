# SPDX-License-Identifier: GPL-2.0-only
# The types of check.pyx.
from ksm.machine import Machine

def check(machine: Machine) -> list[str]: ...
