# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: for tests only.
"""Access for tests and benchmarks: lists, hashes and trees as Python objects, and ways to damage a machine. No wheel has this package: see
setup.py.
"""
