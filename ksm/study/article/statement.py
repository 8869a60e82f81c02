# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what is said of KSM.
"""A statement that articles on KSM make, and what is so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ksm.study.eras import ERAS

RIGHT, OUTDATED, NEVER = "right", "outdated", "never so"
VERDICTS = (RIGHT, OUTDATED, NEVER)
ALL = " ".join(ERAS)
SINCE_6_1, SINCE_6_12 = " ".join(ERAS[1:]), " ".join(ERAS[2:])
UNTIL_6_1 = " ".join(ERAS[:2])


@dataclass(frozen=True)
class Statement:
    """`says`: what such an article says, in our words. `so`: what is so, by eras, separated by spaces; each era is there once. `since`: the
    version that changed it, as in docs/eras.md. `scene`: the lesson, the era and the scene that show it. `function`: the kernel's."""

    key: str
    says: str
    verdict: str
    so: Mapping[str, str]
    scene: tuple[str, str, str]
    function: str
    since: str = ""

    def by_eras(self) -> list[tuple[str, str]]:
        """What is so: the eras, as a reader has them, and the text."""
        return [("in all" if eras == ALL else eras.replace(" ", ", "), " ".join(text.split())) for eras, text in self.so.items()]

    @property
    def address(self) -> str:
        """Where the scene is in the page of `ksm study`."""
        return "#lessons/" + "/".join(self.scene)


@dataclass(frozen=True)
class Part:
    """Statements on one subject."""

    title: str
    statements: tuple[Statement, ...]
