# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what is said of KSM.
"""An article of 2011, annotated: what such articles say of KSM, statement by statement, and what is so. docs/article.md, the page of
`ksm study` and `ksm study --article` are made from it."""

from ksm.study.article.pages import BREAKING, CANDIDATES, MERGING
from ksm.study.article.statement import NEVER, OUTDATED, RIGHT, VERDICTS, Part, Statement
from ksm.study.article.trees import COMPARING, TREES

PARTS: tuple[Part, ...] = (CANDIDATES, TREES, COMPARING, MERGING, BREAKING)
STATEMENTS: tuple[Statement, ...] = tuple(statement for part in PARTS for statement in part.statements)
TITLE = "An article of 2011, annotated"
INTRODUCTION = """Many read of KSM in articles that were written when it was new. They are well worth reading, and some of what they say
has changed since, and a little was never so. Here is our own account of what such an article says, one statement after the other, with
what is so in Linux 2.6.38, 6.1, 6.12 and 7.3. For each there is a scene of a lesson of ksm study that shows it, and the kernel's
function."""
STAR = "A star at a version: not looked up in the kernel's history."

__all__ = ["INTRODUCTION", "NEVER", "OUTDATED", "PARTS", "RIGHT", "STAR", "STATEMENTS", "TITLE", "VERDICTS", "Part", "Statement"]
