# SPDX-License-Identifier: GPL-2.0-only
"""The part of the kernel's fs/proc/ folder that KSM needs: smaps, which counts the pages of every mapping."""
