# SPDX-License-Identifier: GPL-2.0-only
# The types of stops.pyx.
from collections.abc import Callable
from typing import Any

from ksm.machine import Machine

def account(m: Machine) -> dict[str, Any]: ...
def stop_at_each_step(m: Machine, look: Callable[[], None]) -> None: ...
