# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""Fingerprint files: a row for each page, in Parquet. format.py says what is in one; docs/fingerprint-files.md explains it."""

PLAIN_HASH, KEYED_HASH = "XXH3-128", "BLAKE3-128"


def hashed(key: str) -> str:
    """How fingerprints are made with a key of this name, or with "" without one. Only those that were made alike can be compared."""
    return f"{KEYED_HASH} with key {key}" if key else PLAIN_HASH
