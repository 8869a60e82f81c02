# SPDX-License-Identifier: GPL-2.0-only
"""The lists of pages on the kernel's side: those that the port has.

With the multi-generational LRU (CONFIG_LRU_GEN), mark_page_accessed() activates no page. The older lists put a page that is read a second
time into a batch, whose reference keeps the frame of a page that everybody has left: ksmd then finds its stable node in use. The port
follows the older lists, so they are used while a workload runs.
"""

from __future__ import annotations

from pathlib import Path

from ksm.oracle.workload import OracleError

GENERATIONS = Path("/sys/kernel/mm/lru_gen/enabled")


class OlderLists:
    """Switches the generations off, and `close()` switches on what was on. OracleError."""

    def __init__(self) -> None:
        self.before = int(GENERATIONS.read_text(), 0) if GENERATIONS.exists() else 0
        self.store(0)

    def store(self, value: int) -> None:
        try:
            if self.before:
                GENERATIONS.write_text(f"{value}\n")
        except OSError as error:
            raise OracleError(f"{GENERATIONS} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        self.store(self.before)
