# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the key of keyed fingerprints.
"""Files of keys: 32 bytes, or the same as 64 hex digits. `head -c 32 /dev/urandom > FILE` makes one."""

import re

from ksm.host.files import FileError, read_file

LENGTH = 32
LIMIT = 4096  # bytes of a file; the largest with 64 hex digits is much smaller


def read_key(path: str) -> bytes:
    """The key in a file, or in <(command). FileError, whose text is one line and has nothing of the file's contents."""
    data = read_file(path, LIMIT)
    digits = data.strip()
    if re.fullmatch(rb"[0-9a-fA-F]{64}", digits):
        return bytes.fromhex(digits.decode())
    if re.fullmatch(rb"[0-9a-fA-F]+", digits):
        raise FileError(f"{path}: {len(digits)} hex digits are no key: it has {2 * LENGTH}")
    if len(data) != LENGTH:
        raise FileError(f"{path}: {len(data)} bytes are no key: it has {LENGTH} bytes, or {2 * LENGTH} hex digits")
    return data
