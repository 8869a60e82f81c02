# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""A recording, from Machine.record() to the page that plays it."""

from __future__ import annotations

import json
import operator
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from ksm.host.files import FileError, open_to_write
from ksm.host.json_file import read_json
from ksm.record.recorder import COUNTERS, KINDS_OF_STEP, Recorder

if TYPE_CHECKING:
    from typing_extensions import Self

    from ksm.machine import Machine

FORMAT = "ksm recording 2"
OLDER = ("ksm recording 1",)  # without the bytes that decide a comparison
MOST_STEPS = 1_000_000
HEADER = 7  # numbers before the changes of a step: recorder.pyx


class RecordingError(Exception):
    """A file is not a recording. The text is one line: which file, and what is wrong with it."""


class Recording:
    """What KSM does on a machine between the beginning and the end of a with statement, or until stop().

    note() adds a step with a text of the program's own. data() and save() can be called after the end. After `steps` steps, the rest is
    left out, and `truncated` is True.
    """

    _recorder: Recorder | None = None

    def __init__(self, machine: Machine, steps: SupportsIndex = 10000) -> None:
        steps = operator.index(steps)
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"steps must be between 1 and {MOST_STEPS}, not {steps}")
        self.machine, self.era = machine, machine.era
        self.truncated = False
        self.steps = 0
        self._names: dict[int, str] = {}
        self._notes: list[str] = []
        self._taken = 0  # contents
        self._recorder = recorder = Recorder(machine, steps)
        self._words, self._labels = recorder.words, recorder.labels
        self.note("")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /) -> None:
        with suppress(ValueError, RuntimeError):  # the machine is closed, or belongs to another process
            self.stop()

    def __del__(self) -> None:
        # Nobody can ask for this recording any more. Once it is stopped, the machine can be recorded again.
        # At the end of the interpreter this module may have lost its names: not by suppress().
        if self._recorder is not None:
            try:  # noqa: SIM105
                self._recorder.stop()
            except (ValueError, RuntimeError):
                pass

    def __reduce__(self) -> NoReturn:
        raise TypeError("a recording cannot be copied or pickled: data() has what it recorded")

    def note(self, text: str) -> None:
        """Add a step with a text of the program's own, and with what calls have changed since the last step."""
        if self._recorder is None:
            raise ValueError("the recording has ended")
        self._name_processes()
        if self._recorder.look():
            self._notes.append(text)

    def stop(self) -> None:
        """End the recording. Stopping twice is no error."""
        if self._recorder is None:
            return
        self.note("")
        recorder, self._recorder = self._recorder, None
        self.steps, self.truncated = recorder.stop()
        self._words, self._labels = recorder.words, recorder.labels

    def take(self) -> dict[str, Any]:
        """What was recorded since the last call of this: "steps", "notes", "contents" and "mms" of data(), without those that were taken.

        The steps that a recording may have count from 0 again, so that a program may follow a machine as long as it likes. ValueError after
        the end.
        """
        if self._recorder is None:
            raise ValueError("the recording has ended")
        self._name_processes()
        words, labels = self._recorder.take()
        new, self._taken = labels[self._taken:], len(labels)
        notes, self._notes = self._notes, []
        return {"steps": steps_of(words), "notes": list(map(whole, notes)), "contents": list(map(label_of, new)), "mms": self._mms()}

    def _mms(self) -> dict[str, str]:
        return {str(number): whole(name) for number, name in self._names.items()}

    def _name_processes(self) -> None:
        for process in list(self.machine.processes.values()):
            with suppress(ProcessLookupError):
                self._names.setdefault(process.mm_id, process.name)

    def data(self, title: str = "", text: str = "") -> dict[str, Any]:
        """The recording as JSON has it. ValueError before it has ended."""
        if self._recorder is not None:
            raise ValueError("the recording is still under way")
        if not hasattr(self, "_words"):
            raise ValueError("the recording has not begun")
        return {
            "format": FORMAT, "title": whole(title), "text": whole(text), "era": self.era, "truncated": self.truncated,
            "counters": list(COUNTERS), "mms": self._mms(),
            "notes": [whole(note) for note in self._notes],
            "contents": [label_of(label) for label in self._labels], "steps": steps_of(self._words),
        }

    def save(self, path: str | Path, title: str = "", text: str = "") -> None:
        """Write the recording to a file that `ksm study --recording` reads."""
        with open(open_to_write(path), "w", encoding="utf-8") as file:
            json.dump(self.data(title, text), file, separators=(",", ":"))


def steps_of(words: array[int]) -> list[list[int]]:
    """The records of recorder.pyx, one list for each, without their lengths."""
    steps, at = [], 0
    while at < len(words):
        end = at + HEADER + words[at + HEADER - 1]
        steps.append([*words[at:at + HEADER - 1], *words[at + HEADER:end]])
        at = end
    return steps


def whole(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which no file can hold. A name has them if a command line was not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def label_of(start: bytes) -> str:
    """A name for a page, from its first bytes: the text if they are text, else hexadecimal."""
    if not start.strip(b"\0"):
        return "zeros" if start else ""
    text = start.split(b"\0")[0]
    if len(text) > 1 and all(32 <= byte < 127 for byte in text):
        return text.decode()
    return start[:8].hex()


def load(path: str) -> dict[str, Any]:
    """Read a recording that save() has written, of 64 MiB at most. RecordingError."""
    try:
        data = read_json(path)
    except FileError as error:
        raise RecordingError(str(error)) from None
    except ValueError as error:
        raise RecordingError(f"{path} is not a recording: {error}") from None
    if not isinstance(data, dict) or data.get("format") not in (FORMAT, *OLDER):
        raise RecordingError(f"{path} is not a recording of this version ({FORMAT})")
    if reason := damage(data):
        raise RecordingError(f"{path} is damaged: {reason}")
    return {key: data[key] for key in ("format", *KEYS)}


def all_are(kind: type, values: Any) -> bool:
    return all(type(value) is kind for value in values)


# The keys of a recording, with a check of each one's value.
KEYS: dict[str, Callable[[Any], bool]] = {
    "title": lambda value: isinstance(value, str),
    "text": lambda value: isinstance(value, str),
    "era": lambda value: isinstance(value, str),
    "truncated": lambda value: isinstance(value, bool),
    "counters": lambda value: isinstance(value, list) and all_are(str, value),
    "mms": lambda value: isinstance(value, dict) and all_are(str, value.values()),
    "notes": lambda value: isinstance(value, list) and all_are(str, value),
    "contents": lambda value: isinstance(value, list) and all_are(str, value),
    "steps": lambda value: isinstance(value, list) and 0 < len(value) <= MOST_STEPS and all(map(is_step, value)),
}


def is_step(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= HEADER - 1 and all_are(int, value) and 0 <= value[0] < KINDS_OF_STEP


def damage(data: dict[str, Any]) -> str:
    """What is wrong in a recording; empty if nothing is."""
    wrong = (key for key, fits in KEYS.items() if key not in data or not fits(data[key]))
    return next((f"{key} is not there, or not what it should be" for key in wrong), "")
