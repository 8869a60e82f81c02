# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""Where the command `ksm` starts: nothing but what makes Ctrl-C end in one line while the rest is still being imported."""

import sys


def main() -> None:
    try:
        from ksm.cli import main as command

        command(prog_name="ksm")
    except KeyboardInterrupt:
        print("ksm: interrupted", file=sys.stderr)
        sys.exit(130)
