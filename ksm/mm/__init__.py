# SPDX-License-Identifier: GPL-2.0-only
"""What mm/ has in the kernel: KSM, and as much of memory management as reaches it."""
