# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""Reports as pages with pictures, each one HTML file that needs nothing else."""
