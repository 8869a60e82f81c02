# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's mm/: KSM, and the parts of memory management that it needs."""
