# SPDX-License-Identifier: GPL-2.0-only
"""What KSM needs of the kernel's fs/ folder: exec, which begins a new address space."""
