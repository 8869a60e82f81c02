# SPDX-License-Identifier: GPL-2.0-only
"""What KSM needs of the kernel's own kernel/ folder: address spaces are born and die in fork.pyx."""
