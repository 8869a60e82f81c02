# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""Fingerprint files: a row for each page, in Parquet. format.py says what is in one; docs/fingerprint-files.md explains it."""

PLAIN_HASH, KEYED_HASH = "XXH3-128", "BLAKE3-128"
