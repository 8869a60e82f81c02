# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the invariants of a machine.
"""Machine.check(): invariants.pyx says what is verified, and in which file."""

from ksm.check.invariants import check as check
