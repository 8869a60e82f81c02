# SPDX-License-Identifier: GPL-2.0-only
"""Drop actions from a life for as long as it ends in the same way."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

from fuzz.hunt import PATIENCE, Result, live

SIMPLER: list[tuple[str, Any]] = [("nodes", 1), ("plain", True), ("transparent_hugepage", "never"), ("clock", "manual"), ("memory", "4M"),
                                  ("era", "6.12")]  # fmt: skip


class Shrinker:
    def __init__(self, wanted: Result, without: set[str], folder: Path, seconds: float) -> None:
        self.wanted, self.without, self.folder = wanted, without, folder
        self.until = time.monotonic() + seconds
        # A life that is stuck takes all of its patience each time. A life whose child was stuck reports that itself.
        self.patience = 8.0 if wanted.kind == "stuck" and wanted.text.startswith("after") else PATIENCE
        self.last = wanted
        self.runs = 0

    @property
    def signature(self) -> str:
        return self.wanted.signature.replace("after N s", "")

    def same(self, life: dict[str, Any]) -> bool:
        self.runs += 1
        result = live(life, self.without, self.folder, patience=self.patience, leaks=self.wanted.kind == "leak")
        if result.text and result.signature.replace("after N s", "") == self.signature:
            self.last = result
            return True
        return False

    def in_time(self) -> bool:
        return time.monotonic() < self.until

    def drop(self, life: dict[str, Any]) -> dict[str, Any]:
        """Drop ever smaller pieces of the actions, from the end on."""
        for key in ("parts", "start"):
            actions = life[key][0] if key == "parts" else life[key]
            size = max(1, len(actions) // 2)
            while size and self.in_time():
                at = max(0, len(actions) - size)
                while True:
                    fewer = actions[:at] + actions[at + size :]
                    trial = {**life, key: [fewer] if key == "parts" else fewer}
                    if len(fewer) < len(actions) and self.same(trial):
                        life, actions = trial, fewer
                    if at == 0 or not self.in_time():
                        break
                    at = max(0, at - size)
                size //= 2
        return life

    def simplify(self, life: dict[str, Any]) -> dict[str, Any]:
        for key, value in SIMPLER:
            if life["config"]["machine"][key] != value and self.in_time():
                trial = copy.deepcopy(life)
                trial["config"]["machine"][key] = value
                if self.same(trial):
                    life = trial
        for key in list(life["config"]["knobs"]):
            trial = copy.deepcopy(life)
            del trial["config"]["knobs"][key]
            if key == "merge_across_nodes":
                trial["config"]["across"] = True
            if self.in_time() and self.same(trial):
                life = trial
        for number, (_name, args) in enumerate(life["parts"][0]):
            if args.get("odd") is not None and self.in_time():
                trial = copy.deepcopy(life)
                trial["parts"][0][number][1]["odd"] = None
                if self.same(trial):
                    life = trial
        return life


def shrink(life: dict[str, Any], result: Result, without: set[str], folder: Path, seconds: float) -> tuple[dict[str, Any], Result, str]:
    """A smaller life, how it ends, and a line about it. The line says so if the life, with threads or ksmd, goes well the next time."""
    shrinker = Shrinker(result, without, folder, seconds)
    if seconds <= 0:
        return life, result, "not shrunk"
    again = sum(shrinker.same(life) for _ in range(3) if shrinker.in_time())
    if again < shrinker.runs or life["life"] == "threads":
        return life, shrinker.last, f"again {again} times of {shrinker.runs}"
    trial = copy.deepcopy(life)
    trial["config"]["every"] = 1
    if shrinker.same(trial):
        life = trial
    before = len(life["start"]) + sum(map(len, life["parts"]))
    life = shrinker.drop(life)
    life = shrinker.simplify(life)
    life = shrinker.drop(life)
    shrinker.same(life)  # so that the folder has the calls of this life
    return life, shrinker.last, f"{len(life['start']) + sum(map(len, life['parts']))} of {before} actions, after {shrinker.runs} runs"
