# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what `ksm bench` measures.
"""The speed of the port beside the running kernel's ksmd, ways to count duplicates in Python, and reading the memory once."""
