# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the speed layer.
"""The speed layer: the look ahead, keys of pages, and checksums of many pages at once. Its results are those of mm/ksm.c."""
