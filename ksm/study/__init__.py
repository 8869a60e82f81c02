# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""`ksm study`: mm/ksm.c beside ksm/mm/ksm.pyx, and recordings of what the port did.

This package has no text of the kernel: that comes from the reader's own tree. It has the names of the kernel's functions, and hashes
that tell which of them another version has changed.
"""
