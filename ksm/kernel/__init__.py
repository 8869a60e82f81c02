# SPDX-License-Identifier: GPL-2.0-only
"""The part of the kernel's kernel/ folder that KSM needs: fork.pyx makes, copies and frees address spaces."""
