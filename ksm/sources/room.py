# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the memory that this computer has left.
"""Memory for processes that grow while they are scanned. What they had before was looked for when the scan began: see make_machine()."""

from __future__ import annotations

from ksm.constants import PAGE_SIZE
from ksm.host.memory import available_memory
from ksm.host.text import size
from ksm.sources.base import SourceError
from ksm.sources.stream import LATER

AT_ONCE = 64  # bytes that a page takes when it is read, besides its own: a frame, a struct page, a page table entry
SLACK = 16 << 20  # for page tables of the kernel and lists of runs


class Room:
    """Counts, for all processes of a scan, the bytes of memory that are new in this pass. KSM has yet to make their rmap_items."""

    def __init__(self) -> None:
        self.new = 0

    def begin(self) -> None:
        """A new pass: KSM has seen what came in the last one."""
        self.new = 0

    def take(self, name: str, grown: int, *, exact: bool) -> None:
        """See that there is memory for `grown` more bytes of a process; `exact`: the machine keeps bytes. SourceError."""
        pages = grown // PAGE_SIZE
        needed = pages * (AT_ONCE + (PAGE_SIZE if exact else 0)) + (self.new // PAGE_SIZE + pages) * LATER + SLACK
        if needed > (available := available_memory()):
            raise SourceError(
                f"{name}: its memory has grown too large for this scan: {size(grown)} more need {size(needed)}, and {size(available)} are "
                "available"
            )
