# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the computer that this runs on.
"""What speaks of the computer that runs this: its memory, its mmap(), its bus errors."""
