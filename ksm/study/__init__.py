# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""`ksm study`: mm/ksm.c beside ksm/mm/ksm.pyx, and recordings of what the port did.

Nothing of the kernel is in here. Its text comes from the reader's own tree; what is known of it without one are names, and hashes that
tell which of its functions another version has changed.
"""
