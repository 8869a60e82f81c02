# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""What is known of mm/ksm.c of Linux 6.12, which the port follows, without its text: the hashes of its functions."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

HASHES = Path(__file__).with_name("hashes.json")
BASE = "6.12"


@cache
def known() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(HASHES.read_text())
    return data


def base_hashes() -> dict[str, str]:
    """The functions of 6.12 in the file's order, each with the hash of its code."""
    hashes: dict[str, str] = known()["functions"]
    return hashes


def base_shapes() -> dict[str, str]:
    """The functions of 6.12, each with the hash of its code in which names are numbers: equal for code that differs by names only."""
    shapes: dict[str, str] = known()["shapes"]
    return shapes


def base_steps() -> dict[str, str]:
    """The functions of 6.12, each with the hash of its code in which what versions call otherwise has one name (told.py)."""
    steps: dict[str, str] = known()["steps"]
    return steps


def base_version() -> str:
    version: str = known()["version"]
    return version
