# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what lets ksmd answer faster.
"""The speed layer: the look ahead, keys of pages, and checksums of many pages at once. It gives the answers of mm/ksm.c."""
