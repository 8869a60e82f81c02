# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what is said of KSM.
"""Print docs/article.md."""

import sys

from ksm.study.article import TITLE
from ksm.study.article.words import as_markdown

sys.stdout.write(f"# {TITLE}\n\n{as_markdown()}")
