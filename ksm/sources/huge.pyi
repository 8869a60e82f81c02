# SPDX-License-Identifier: GPL-2.0-only
# The types of huge.pyx.
from ksm.sources.pieces import Run

def huge_blocks(
    pagemap: int, kpageflags: int, blocks: list[Run], *, ask_ioctl: bool = True, others: bool = False
) -> tuple[list[Run], int]: ...
