# SPDX-License-Identifier: GPL-2.0-only
"""python -m ksm"""

from ksm.cli.start import main

if __name__ == "__main__":
    main()
