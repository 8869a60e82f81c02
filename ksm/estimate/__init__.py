# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what ksm scan does.
"""An estimate: what KSM would save for these sources, and the report of it."""
