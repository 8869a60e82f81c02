# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pictures of a machine.
"""Machine.draw(), and what a notebook shows of a machine: page tables as tiles, both trees, counters."""
