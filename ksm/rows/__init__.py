# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""Fingerprint files: a row for each page, in Parquet. format.py says what is in one; docs/fingerprint-files.md explains it."""
