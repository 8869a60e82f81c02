# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what a lesson tells.
"""Scenes: the steps of a lesson at which its story stops, each with a text and perhaps a question.

A lesson says where a scene is by the name of a step and which of them it is. When the lesson is recorded, the scene gets the step's number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ksm.study.steps import NAMES


class SceneError(ValueError):
    """A lesson has a scene that its recording cannot show. The text says which scene, and why."""


@dataclass(frozen=True)
class Scene:
    """One scene. The machine is shown as the step has left it.

    `at`: the name of a step (steps.NAMES); a recording begins and ends with a NOTE of its own. `nth`: which of the steps of that name, from
    1 on; from -1 on, counted from the end. `eras`: the eras in which the lesson has this scene; empty for all.

    `question` is asked before the reader goes on, so that its answer is what he sees next; `right` is the index of the right one in
    `answers`; `why` is told with either answer.
    """

    key: str
    at: str
    title: str
    text: str
    nth: int = 1
    question: str = ""
    answers: tuple[str, ...] = ()
    right: int = 0
    why: str = ""
    eras: tuple[str, ...] = ()


def resolve(scenes: Iterable[Scene], steps: Sequence[Sequence[int]], era: str) -> list[dict[str, Any]]:
    """The scenes of a lesson in an era, in the order of a recording's steps, as its JSON has them. SceneError."""
    found: list[dict[str, Any]] = []
    keys: set[str] = set()
    for scene in scenes:
        if scene.eras and era not in scene.eras:
            continue
        if reason := wrong(scene, keys):
            raise SceneError(f"scene {scene.key!r}: {reason}")
        keys.add(scene.key)
        places = [number for number, step in enumerate(steps) if NAMES[step[0]] == scene.at]
        index = scene.nth - 1 if scene.nth > 0 else scene.nth
        if not -len(places) <= index < len(places):
            raise SceneError(f"scene {scene.key!r}: step {scene.at} number {scene.nth} is not there in {era}, "
                             f"which has {len(places)} of them")
        if found and places[index] <= found[-1]["step"]:
            last = found[-1]
            raise SceneError(f"scene {scene.key!r} is at step {places[index]}, not after {last['key']!r}, which is at {last['step']}")
        found.append({
            "key": scene.key, "step": places[index], "title": scene.title, "text": " ".join(scene.text.split()),
            "question": scene.question, "answers": list(scene.answers), "right": scene.right, "why": scene.why,
        })
    return found


def wrong(scene: Scene, keys: set[str]) -> str:
    """What is wrong with a scene, whatever the recording is; empty if nothing is."""
    if scene.key in keys:
        return "another scene has this key"
    if scene.key.strip("abcdefghijklmnopqrstuvwxyz0123456789-") or not scene.key.strip("0123456789"):
        return "a key has small letters, digits and hyphens, and is no number"
    if scene.at not in NAMES:
        return f"there is no step {scene.at}"
    if not scene.nth:
        return "steps are counted from 1 on, or from -1 on backwards"
    if not (scene.title and scene.text):
        return "it needs a title and a text"
    if bool(scene.question) != bool(scene.answers) or bool(scene.question) != bool(scene.why):
        return "a question needs answers and a reason, and they need a question"
    if scene.question and not (len(scene.answers) > 1 and 0 <= scene.right < len(scene.answers)):
        return "a question needs two answers at least, of which one is right"
    return ""
