# SPDX-License-Identifier: GPL-2.0-only
"""What KSM needs of the kernel's fs/proc/ folder: smaps, which counts the pages of every mapping."""
