# SPDX-License-Identifier: GPL-2.0-only
# The types of frames.pyx.
from typing_extensions import Buffer

def frames_of(data: Buffer, *, jhash: bool = False) -> bytes: ...
