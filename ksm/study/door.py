# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""The front door of the page: what a visitor may choose where no machine answers, recorded when the page is made."""

from __future__ import annotations

from typing import Any

from ksm.machine import ERAS
from ksm.study.serve.actions import World

# What can be chosen: the words of its button, and the action.
CHOICES: dict[str, tuple[str, dict[str, Any]]] = {
    "scan": ("Let ksmd pass by", {"do": "scan", "passes": 1}),
    "write": ("bob writes “my own words” into page 2", {"do": "write", "process": "bob", "page": 2, "text": "my own words"}),
    "back": ("bob writes “the same page” again", {"do": "write", "process": "bob", "page": 2, "text": "the same page"}),
    "change": ("alice writes “a new thought” into page 1", {"do": "write", "process": "alice", "page": 1, "text": "a new thought"}),
    "third": ("bob writes “the same page” into page 3, too", {"do": "write", "process": "bob", "page": 3, "text": "the same page"}),
    "fourth": ("alice writes “the same page” into page 1, too", {"do": "write", "process": "alice", "page": 1, "text": "the same page"}),
    "fork": ("alice forks", {"do": "fork", "process": "alice"}),
    "apart": ("bob says madvise(MADV_UNMERGEABLE)", {"do": "madvise", "process": "bob", "mergeable": False}),
    "again": ("bob says madvise(MADV_MERGEABLE) again", {"do": "madvise", "process": "bob", "mergeable": True}),
    "limit": ("max_page_sharing = 2", {"do": "set", "name": "max_page_sharing", "value": 2}),
}
EVERYWHERE = (
    "scan scan scan scan",
    "scan scan write scan scan",
    "scan scan write scan back scan scan",
    "scan scan fork scan write scan",
)
RUNS = {"6.12": (
    *EVERYWHERE,
    "scan scan apart scan again scan scan",
    "scan change scan scan scan",
    "fork scan scan scan",
    "limit third fourth scan scan scan",
)}


def run(era: str, keys: list[str]) -> list[dict[str, Any]]:
    """What the page gets for each choice, the first one for the beginning, as the server answers."""
    world = World(era)
    try:
        answers = [world.begun(), *(world.do(CHOICES[key][1]) for key in keys)]
        wrong = world.machine.check()
    finally:
        world.close()
    assert not wrong, wrong
    return answers


def recorded() -> dict[str, Any]:
    """All that can be chosen: {"choices": by key, "runs": by era}. Each run has its keys, and an answer more than keys."""
    runs = {
        era: [{"keys": keys, "answers": run(era, keys)} for keys in map(str.split, RUNS.get(era, EVERYWHERE))] for era in ERAS
    }
    return {"choices": {key: {"label": label, "action": action} for key, (label, action) in CHOICES.items()}, "runs": runs}
