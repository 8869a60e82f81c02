# SPDX-License-Identifier: GPL-2.0-only
"""The lists of pages on the kernel's side: those that the port has.

With the multi-generational LRU (CONFIG_LRU_GEN), mark_page_accessed() activates no page. The older lists put a page that is read a second
time into a batch, whose reference keeps the frame of a page that everybody has left: ksmd then finds its stable node in use. The port
follows the older lists, so they are used while a workload runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from ksm.host.files import FileError, read_file, write_whole
from ksm.host.json_file import shown
from ksm.oracle.workload import OracleError

GENERATIONS = Path("/sys/kernel/mm/lru_gen/enabled")
MOST = 1 << 16  # a number above what the file has


class OlderLists:
    """Switches the generations off, and `close()` switches on what was on. Meanwhile it stands in a file, so that the run after one that
    was killed can do so. OracleError.
    """

    def __init__(self, backup: Path) -> None:
        self.backup = backup
        self.before = 0
        if GENERATIONS.exists():
            self.before = self.saved() if os.path.lexists(backup) else int(GENERATIONS.read_text(), 0)
        if self.before:
            try:
                write_whole(str(backup), f"{self.before}\n")
            except OSError as error:
                raise OracleError(f"{backup} cannot be written: {error.strerror or error}") from None
            self.store(0)

    def saved(self) -> int:
        """What was on before a run that was killed."""
        try:
            text = read_file(str(self.backup), MOST).decode("ascii", "replace").strip()
        except FileError as error:
            raise OracleError(str(error)) from None
        if not (text.isdecimal() and len(text) < 6 and 0 < int(text) < MOST):
            raise OracleError(f"{self.backup} is damaged ({shown(text)}): it has what {GENERATIONS} was before a run that was killed; "
                              "set it, and remove the file")
        return int(text)

    def store(self, value: int) -> None:
        try:
            GENERATIONS.write_text(f"{value}\n")
        except OSError as error:
            raise OracleError(f"{GENERATIONS} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        if self.before:
            self.store(self.before)
            self.backup.unlink(missing_ok=True)
