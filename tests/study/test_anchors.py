# SPDX-License-Identifier: GPL-2.0-only
"""Every step of every lesson lights the line that takes it, on both sides.

Of the kernel's files, 6.12 is where it always is. Others are read if $KSM_KERNEL_SOURCES is a folder with linux-source-VERSION for 2.6.38,
6.1 or 7.3 in it. What they have is in anchors.json in any case: number and hash of each line.
"""

import os
import re
from pathlib import Path

import pytest

from ksm.study.anchors import (
    KSM,
    MEMORY,
    OF_STEP,
    WITHOUT,
    Anchor,
    AnchorError,
    anchors,
    case_of,
    hash_of,
    kernel_line,
    known,
    line_of,
    port_line,
    versions,
)
from ksm.study.eras import ERAS
from ksm.study.functions import c_source, cython_source
from ksm.study.kernel import read_kernel
from ksm.study.lens import memory, steps_for, table
from ksm.study.lessons import record_all
from ksm.study.pairing import read_port
from ksm.study.steps import NAMES, STEPS, era_of

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def recordings():
    return record_all()


@pytest.fixture(scope="module")
def taken(recordings):
    """For each era the steps that its lessons take, with their cases."""
    return {era: {(NAMES[step[0]], case_of(step)) for each in recordings if era in each["eras"] for step in each["steps"]} for era in ERAS}


def source_of(era, linux):
    """The folder of an era's kernel; skips if it is not there."""
    if era == "6.12":
        return linux
    top = Path(os.environ.get("KSM_KERNEL_SOURCES") or "/nowhere")
    found = [path for path in sorted(top.glob(f"linux-source-{era}*")) if (path / KSM).is_file()]
    if not found:
        pytest.skip(f"$KSM_KERNEL_SOURCES has no linux-source-{era}")
    return found[0]


def test_each_kind_of_step_has_an_anchor():
    assert {step.name for step in STEPS} == OF_STEP.keys() | set(WITHOUT)
    for name, found in OF_STEP.items():
        for era in ERAS:
            cases = [anchor.case for anchor in found if era in anchor.eras]
            assert len(cases) == len(set(cases)), (name, era)


@pytest.mark.parametrize("era", ERAS)
def test_the_port_has_the_line_of_each_step(era):
    """Also of steps that no lesson takes. The line is not the call that tells the recording."""
    files = {KSM: read_port(), MEMORY: memory()}
    for name in OF_STEP:
        for case, anchor in anchors(name, era).items():
            line = files[anchor.file].lines[port_line(anchor, files[anchor.file], era) - 1]
            assert "ksm_step(" not in line and line.strip(), (name, case)


@pytest.mark.parametrize("era", ERAS)
def test_the_kernel_has_the_line_of_each_step(era, linux):
    folder = source_of(era, linux)
    texts = {name: c_source((folder / name).read_text()) for name in (KSM, MEMORY) if (folder / name).is_file()}
    kernel = read_kernel(str(folder))
    same = kernel.version in ("", versions()[era])
    for name in OF_STEP:
        for case, anchor in anchors(name, era).items():
            if anchor.file not in texts:
                continue
            line = kernel_line(anchor, texts[anchor.file])
            if same:
                key = f"{name}:{case}" if case else name
                assert known()[era][key] == [anchor.file, anchor.function, line, hash_of(texts[anchor.file].lines[line - 1])], key
    assert era_of(kernel.source) == era


@pytest.mark.parametrize("era", ERAS)
def test_each_step_of_the_lessons_has_its_line_in_the_table(era, taken):
    """Without the kernel's text: what was found in it."""
    numbers = {}
    for name, case in taken[era]:
        if name in WITHOUT:
            continue
        anchor = anchors(name, era)[case]
        if era == "2.6.38" and anchor.file == MEMORY:
            continue        # that file was not to be had
        file, function, line, digest = known()[era][f"{name}:{case}" if case else name]
        assert (file, function) == (anchor.file, anchor.function) and line > 0 and re.fullmatch("[0-9a-f]{16}", digest)
        numbers.setdefault((file, line), set()).add((name, anchor.sign))
    # Two kinds of step light the same line only if the same sign finds it.
    assert all(len({sign for _, sign in found}) == 1 for found in numbers.values())


@pytest.mark.parametrize("era", ERAS)
def test_the_page_lights_each_step(era, linux, taken, recordings):
    """What lens.js has for a page that is made with a kernel of that era."""
    kernel = read_kernel(str(source_of(era, linux)))
    port = read_port()
    theirs = {MEMORY: c_source(kernel.texts[MEMORY])} if MEMORY in kernel.texts else {}
    steps = {step["name"]: step for step in steps_for(kernel, port, theirs)}
    assert table(kernel, recordings)["chosen"] == era
    for name, case in taken[era]:
        if name not in WITHOUT:
            assert re.fullmatch(r"pm?\d+", steps[name]["port"][era][case]), (name, case)
            if anchors(name, era)[case].file == KSM or theirs:
                assert re.fullmatch(r"km?\d+", steps[name]["kernel"][case]), (name, case)


def test_a_missing_or_doubtful_line_is_an_error():
    source = cython_source("cdef void once(int a) noexcept nogil:\n    a += 1\n    a += 1\n    a -= 1\n")
    assert line_of(source, "once", "-= 1") == 4
    assert line_of(source, "once", r"\+= 1", {2}) == 3
    for function, sign, says in (("once", r"\+= 1", "2 lines"), ("once", "nothing", "0 lines"), ("twice", "a", "there is no")):
        with pytest.raises(AnchorError, match=says):
            line_of(source, function, sign)
    assert port_line(Anchor("once", "", "-= 1"), source, "6.12") == 4


def test_lessons_take_most_kinds_of_step(taken):
    """What no lesson shows: races and rare orders."""
    shown = {name for found in taken.values() for name, _ in found}
    assert set(NAMES) - shown == {"NODE_MOVED", "STABLE_BUSY", "NOT_PROTECTED", "DIFFERS"}
