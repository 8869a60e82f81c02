# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the computer that this runs on.
"""The computer that runs this: its memory, mmap(), bus errors, files and programs."""
