# SPDX-License-Identifier: GPL-2.0-only
"""Scenes: where the story of a lesson stops."""

import pytest

from ksm.study.lessons import lesson, record_lesson
from ksm.study.scenes import Scene, SceneError, resolve
from ksm.study.steps import NAMES

pytestmark = pytest.mark.once

STEPS = [[NAMES.index(name)] for name in ("NOTE", "NEXT", "CHANGED", "NEXT", "CHANGED", "NOTE")]
QUESTION = {"question": "What now?", "answers": ("this", "that"), "why": "Because."}


def scene(key="a", at="NEXT", **more):
    return Scene(key, at, "a title", "a  text\n of two lines", **more)


def test_a_scene_gets_the_number_of_its_step():
    found = resolve([scene(), scene("b", "CHANGED", nth=2, right=1, **QUESTION), scene("c", "NOTE", nth=-1)], STEPS, "6.12")
    assert [(each["key"], each["step"]) for each in found] == [("a", 1), ("b", 4), ("c", 5)]
    assert found[0] == {"key": "a", "step": 1, "title": "a title", "text": "a text of two lines", "question": "", "answers": [], "right": 0,
                        "why": ""}
    assert (found[1]["question"], found[1]["answers"], found[1]["right"], found[1]["why"]) == ("What now?", ["this", "that"], 1, "Because.")


def test_a_scene_of_another_era_is_left_out():
    scenes = [scene(eras=("2.6.38",)), scene("b", "AT_ITS_NODE", eras=("6.12",))]
    assert [each["key"] for each in resolve(scenes, STEPS, "2.6.38")] == ["a"]


@pytest.mark.parametrize(("wrong", "says"), [
    ([scene(nth=3)], "scene 'a': step NEXT number 3 is not there in 6.12, which has 2 of them"),
    ([scene(nth=-3)], "number -3 is not there"),
    ([scene(nth=0)], "counted from 1"),
    ([scene(at="NOWHERE")], "no step NOWHERE"),
    ([scene(nth=2), scene("b", "CHANGED")], "scene 'b' is at step 2, not after 'a', which is at 3"),
    ([scene(), scene(at="CHANGED")], "another scene has this key"),
    ([scene("12")], "no number"),
    ([scene("a b")], "small letters"),
    ([scene(**{**QUESTION, "answers": ()})], "a question needs answers"),
    ([scene(**{**QUESTION, "why": ""})], "a reason"),
    ([scene(right=2, **QUESTION)], "of which one is right"),
    ([Scene("a", "NEXT", "a title", "")], "a title and a text"),
])
def test_a_wrong_scene_is_an_error_with_its_key(wrong, says):
    with pytest.raises(SceneError, match=says) as error:
        resolve(wrong, STEPS, "6.12")
    assert repr(wrong[-1].key) in str(error.value)


@pytest.mark.parametrize("era", lesson("equal").eras)
def test_the_first_lesson_is_told_in_scenes(era):
    data = record_lesson("equal", era)
    assert data["lesson"] == "equal" and 8 <= len(data["scenes"]) <= 16
    later = {"cow_ksm", "pages_skipped", "ksm_zero_pages", "stable_node_chains"} & set(data["files"])
    assert later == {"2.6.38": set(), "6.1": {"cow_ksm", "stable_node_chains"}}.get(
        era, {"cow_ksm", "pages_skipped", "ksm_zero_pages", "stable_node_chains"})
    assert sum(bool(each["question"]) for each in data["scenes"]) >= 3
