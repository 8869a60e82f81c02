# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""What one version of mm/ksm.c has changed against another: which names, which places, and what it means for a page.

A name or a place is found by comparing the code. What a change means is said by told.py; where it says nothing, only the kind is told.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from markupsafe import Markup, escape

from ksm.study.base import base_hashes, base_shapes, base_steps, base_version
from ksm.study.functions import Function, Source, code_hash, normalised, shape, shape_hash, without_comments
from ksm.study.kernel import Kernel
from ksm.study.notes import IN_ANOTHER_FILE, RENAMED
from ksm.study.told import FACTS, READ, TRACE, Fact, steps_hash, with_one_name

LONGEST = 300  # characters of a line in which the differing words are marked
LEAST = 4  # lines of code that have to have moved together
MOVED = 0.6  # of a function's lines, that have come from one other function
COMMON = 20  # functions that a statement may be in
SMALL = 20  # tokens: functions with fewer look like each other too easily

RENAME, MOVE, UNTOLD = "rename", "move", "untold"
KINDS = {
    RENAME: "rename", MOVE: "move", TRACE: "trace events", "behaviour": "behaviour", READ: "what can be read", "code": "code only",
    UNTOLD: "meaning not known",
}


@dataclass
class Change:
    """What a version has changed in one function. `what`: "new", "gone", "changed", "renamed". `kinds`: those of KINDS. `texts`: what is
    known of it. `diff` is empty unless the reader has both texts: (kind of line, the line with its differing words marked)."""

    name: str
    what: str
    diff: list[tuple[str, Markup]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    was: str = ""  # the name on the older side, if it is another one
    lines: set[int] = field(default_factory=set)  # of the kernel's, that are new or changed


def changes(kernel: Kernel | None, older: Kernel | None) -> list[Change]:
    """What a version has changed, function by function: against the reader's other tree, else by the hashes of 6.12's functions."""
    if kernel is None:
        return []
    newer = is_newer(kernel.version, older.version if older else base_version())
    return list(_by_text(kernel.source, older.source, newer) if older else _by_hash(kernel.source, newer))


def is_newer(version: str, other: str) -> bool | None:
    """Whether a version is newer than another one; None if it is the same, or one of them is not known."""
    numbers, others = ([int(number) for number in re.findall(r"\d{1,6}", each)[:3]] for each in (version, other))
    return None if not numbers or not others or numbers == others else numbers > others


def _by_hash(source: Source, newer: bool | None) -> Iterator[Change]:
    new = source.functions
    gone = [name for name in base_hashes() if name not in new]
    names = renamed({name: shape_hash(new[name].text) for name in new if name not in base_hashes() and _large(new[name].text)},
                    {name: base_shapes()[name] for name in gone})
    names |= {name: now for name in new if name not in base_hashes() and (now := RENAMED.get(name, "")) in gone}
    for name, function in new.items():
        was = names.get(name, "")
        if base_hashes().get(name) != code_hash(function.text):
            change = Change(name, "renamed" if was else "changed" if name in base_hashes() else "new", was=was)
            if base_steps().get(was or name) == steps_hash(function.text) or (was and base_shapes()[was] == shape_hash(function.text)):
                change.kinds.append(RENAME)
            elif base_shapes().get(name) == shape_hash(function.text):
                change.texts.append("Only names differ.")
            _tell(change, _code(function), None, newer)
            yield change
    kept = set(names.values())
    for name in gone:
        if name not in kept:
            change = Change(name, "gone")
            _tell(change, None, None, newer)
            yield change


def _by_text(now: Source, before: Source, newer: bool | None) -> Iterator[Change]:
    new, old = now.functions, before.functions
    names = renamed({name: shape(new[name].text) for name in new if name not in old and _large(new[name].text)},
                    {name: shape(old[name].text) for name in old if name not in new})
    for was, name in [*RENAMED.items(), *((name, was) for was, name in RENAMED.items())]:
        if name in new and name not in old and was in old and was not in new:
            names.setdefault(name, was)
    kept = set(names.values())
    lost = _places({name: _lines_without(old[name], new.get(name)) for name in old if name not in kept})
    for name, function in new.items():
        was = names.get(name, name)
        other = old.get(was)
        if other is None or normalised(other.text) != normalised(function.text):
            change = Change(name, "new" if other is None else "renamed" if was != name else "changed", was=was if was != name else "")
            _compare(change, function, other)
            if other is None and (source := _came_from(function, lost)):
                change.kinds.append(MOVE)
                change.texts.append(f"Most of its lines were in {source}() before.")
            _tell(change, _code(function), _code(other), newer, both=True)
            yield change
    gained = _places({name: _lines_without(new[name], old.get(names.get(name, name))) for name in new})
    for name, function in old.items():
        if name not in new and name not in kept:
            change = Change(name, "gone")
            _compare(change, None, function)
            if target := _came_from(function, gained):
                change.kinds.append(MOVE)
                change.texts.append(f"Most of its lines are in {target}() now.")
            _tell(change, None, _code(function), newer, both=True)
            yield change


def renamed(new: dict[str, str], old: dict[str, str]) -> dict[str, str]:
    """Functions of the one version that are the same code, but for names, as one function of the other: the new name and the old one."""
    once, often = Counter(old.values()), Counter(new.values())
    one = {code: name for name, code in old.items() if once[code] == 1}
    return {name: one[code] for name, code in new.items() if code in one and often[code] == 1}


def _large(text: str) -> bool:
    return normalised(text).count(" ") >= SMALL


def _code(function: Function | None) -> str | None:
    return re.sub(r"\s+", " ", without_comments(function.text)) if function else None


def _compare(change: Change, now: Function | None, before: Function | None) -> None:
    """The lines that differ, and the kind of change that the code itself shows."""
    new, old = (function.text.split("\n") if function else [] for function in (now, before))
    change.diff = list(diff_lines(old, new))
    if now:
        change.lines = {now.first + line for line in changed_lines(old, new)}
    if not now or not before:
        return
    one, other = with_one_name(_code(now) or ""), with_one_name(_code(before) or "")
    names = other_names(before.text, now.text)
    if names:
        change.texts.append(f"Only names differ: {', '.join(f'{old} → {new}' for old, new in names)}.")
    if normalised(one) == normalised(other) or (names and all(_means_the_same(*pair, change, now.text) for pair in names)):
        change.kinds.append(RENAME)
    elif _without_trace(one) == _without_trace(other):
        change.kinds.append(TRACE)
    elif Counter(_statements(one)) == Counter(_statements(other)):
        change.kinds.append(MOVE)
        change.texts.append("The same statements in another order.")


def other_names(before: str, now: str) -> list[tuple[str, str]]:
    """The names that another name has come in place of, if the texts differ by names only."""
    if shape(before) != shape(now):
        return []
    pairs = zip(normalised(before).split(" "), normalised(now).split(" "), strict=True)
    return list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))


def _means_the_same(old: str, new: str, change: Change, text: str) -> bool:
    """Whether another name is no other thing: a variable, the function itself, or a name of SYNONYMS; not another flag or function."""
    if with_one_name(old) == with_one_name(new) or (old, new) == (change.was, change.name):
        return True
    return not new.isupper() and not re.search(rf"\b{new}\s*\(", text)


def _statements(code: str) -> list[str]:
    return [statement.strip() for statement in re.split(r"[;{}]", code) if statement.strip()]


def _without_trace(code: str) -> list[str]:
    return [statement for statement in _statements(code) if not statement.startswith("trace_")]


def _lines_without(function: Function, other: Function | None) -> Counter[str]:
    """The statements of a function that the other one does not have."""
    return Counter(_statements(with_one_name(_code(function) or ""))) - Counter(_statements(with_one_name(_code(other) or "")))


def _places(functions: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """Of each statement the functions that it is in, and how often. What is in many functions tells nothing."""
    result: dict[str, dict[str, int]] = {}
    for name, statements in functions.items():
        for statement, number in statements.items():
            result.setdefault(statement, {})[name] = number
    return {statement: places for statement, places in result.items() if len(places) <= COMMON}


def _came_from(function: Function, places: dict[str, dict[str, int]]) -> str:
    """The function that has lost, or won, most of the statements of this one; "" if there is none."""
    own = Counter(_statements(with_one_name(_code(function) or ""))[1:])
    common: Counter[str] = Counter()
    for statement, number in own.items():
        common.update({name: min(number, there) for name, there in places.get(statement, {}).items() if name != function.name})
    best, most = common.most_common(1)[0] if common else ("", 0)
    return best if most >= LEAST and most >= MOVED * own.total() else ""


def _tell(change: Change, now: str | None, before: str | None, newer: bool | None, both: bool = False) -> None:
    """Add what is known of the change. `newer`: whether the version is newer than the other one, if that is known. `both`: both can be
    read; else the other one is 6.12."""
    found = [fact for fact in dict.fromkeys((*_facts(FACTS).get(change.name, ()), *_facts(FACTS).get(change.was, ())))
             if fact.found(now) != (fact.found(before) if both else fact.base)]
    if change.what in ("new", "gone"):
        # The function itself is the sign. What is gone from a newer version is not what came with it once.
        found = [fact for fact in found if not fact.sign and (newer is None or fact.old == ((change.what == "new") != newer))]
    for fact in found:
        if fact.kind not in change.kinds:
            change.kinds.append(fact.kind)
        if (text := told(fact)) not in change.texts:
            change.texts.append(text)
    if reason := IN_ANOTHER_FILE.get(change.name):
        change.kinds.append(MOVE)
        change.texts.append(f"{reason[0].upper()}{reason[1:]}.")
    elif change.what != "changed" and (file := re.fullmatch(r"(\w+)_(show|store)", change.name)):
        change.kinds.append(READ)
        change.texts.append(f"The file /sys/kernel/mm/ksm/{file[1]}.")
    change.kinds = list(dict.fromkeys(change.kinds)) or [UNTOLD]
    if change.kinds == [RENAME] and not change.texts:
        change.texts.append("Other names for the same steps.")


@lru_cache(4)
def _facts(facts: tuple[Fact, ...]) -> dict[str, list[Fact]]:
    """The facts of each function."""
    result: dict[str, list[Fact]] = {}
    for fact in facts:
        for name in fact.functions:
            result.setdefault(name, []).append(fact)
    return result


def told(fact: Fact) -> str:
    return f"Since {fact.since}: {fact.text}" if fact.since else fact.text


# Lines, with the words that differ

def diff_lines(before: list[str], now: list[str]) -> Iterable[tuple[str, Markup]]:
    """A unified diff, with the words marked that differ between a line and the one in its place."""
    kinds = {"+": "add", "-": "del", "@": "at"}
    lines = [(kinds.get(line[0], "same"), line) for line in list(difflib.unified_diff(before, now, lineterm="", n=3))[2:]]
    at = 0
    while at < len(lines):
        end = at
        while end < len(lines) and lines[end][0] == "del":
            end += 1
        last = end
        while last < len(lines) and lines[last][0] == "add":
            last += 1
        if at < end < last:
            olds, news = [line for _, line in lines[at:end]], [line for _, line in lines[end:last]]
            pairs = dict(_in_place_of(olds, news))
            yield from (("del", _marked(line, news[pairs[i]]) if i in pairs else escape(line)) for i, line in enumerate(olds))
            back = {j: i for i, j in pairs.items()}
            yield from (("add", _marked(line, olds[back[j]]) if j in back else escape(line)) for j, line in enumerate(news))
            at = last
        else:
            yield lines[at][0], escape(lines[at][1])
            at += 1


def _in_place_of(olds: list[str], news: list[str]) -> Iterator[tuple[int, int]]:
    """The lines of which one has come in place of the other: in order, with half of their words in common."""
    start = 0
    for i, old in enumerate(olds):
        for j in range(start, min(len(news), start + 8)):
            if max(len(old), len(news[j])) <= LONGEST:
                one, other = Counter(_words(old[1:])), Counter(_words(news[j][1:]))
                if 2 * (one & other).total() >= max(one.total(), other.total()) > 0:
                    yield i, j
                    start = j + 1
                    break


def _words(line: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", line)


def _marked(line: str, other: str) -> Markup:
    """The line, with <mark> around what the other one does not have."""
    words, others = (re.findall(r"\w+|\s+|[^\w\s]", text[1:]) for text in (line, other))
    parts = [escape(line[0])]
    for kind, first, last, _, _ in difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        text = escape("".join(words[first:last]))
        parts.append(text if kind == "equal" or not text.strip() else Markup("<mark>{}</mark>").format(text))
    return Markup("").join(parts)


def changed_lines(before: list[str], now: list[str]) -> Iterator[int]:
    """The lines of code that are new or changed, counted from 0. Comments do not count."""
    old, new = (without_comments("\n".join(lines)).split("\n") for lines in (before, now))
    matcher = difflib.SequenceMatcher(None, [" ".join(line.split()) for line in old],
                                      [" ".join(line.split()) for line in new])
    for kind, _, _, first, last in matcher.get_opcodes():
        if kind != "equal":
            yield from (line for line in range(first, last) if re.search(r"\w", new[line]))
