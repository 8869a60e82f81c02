# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""Where the command `ksm` starts: nothing but what makes Ctrl-C end in one line while the rest is still being imported."""

import gc
import sys


def main() -> None:
    # Imported modules stay. Searching them for garbage, again and again and once more at the end, takes a quarter of the whole start.
    gc.set_threshold(100_000)
    try:
        from ksm.cli.group import main as command

        command(prog_name="ksm")
    except KeyboardInterrupt:
        print("ksm: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        gc.freeze()
