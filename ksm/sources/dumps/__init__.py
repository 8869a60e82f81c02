# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: forms in which other programs store memory.
"""Readers of dumps and saved guests. docs/formats.md says which program writes what, and what a page that is left out means."""
