# SPDX-License-Identifier: GPL-2.0-only
"""The part of the kernel's fs/ folder that KSM needs: exec, which begins a new address space."""
