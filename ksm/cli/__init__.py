# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""The command `ksm`: start.py is where it begins, group.py has its subcommands."""
