# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""Writing down the steps of a scan: Machine.record(). ksm/step.pxd has the steps, ksm.study plays them."""
