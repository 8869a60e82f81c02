# SPDX-License-Identifier: GPL-2.0-only
"""The commands of docs/fleet-example.md, as a script, and what is true of what they leave behind."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from commands import invoke

import ksm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fleet-example.md"
BLOCKS = re.compile(r"^(<!-- guests -->\n)?```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
APART = "*redis-server*"


def script(*, guests: bool) -> str:
    """The commands; those on guests are left out unless there are some."""
    return "set -eu\n" + "".join(text for marked, text in BLOCKS.findall(PAGE.read_text()) if guests or not marked)


def programs(folder: Path) -> dict[str, str]:
    """An environment in which the page's programs are those of this test."""
    binaries = folder / "bin"
    binaries.mkdir()
    home = Path(ksm.__file__).resolve().parents[1]
    (binaries / "ksm").write_text(f'#!/bin/sh\nPYTHONPATH={home} exec {sys.executable} -m ksm "$@"\n')
    (binaries / "ksm").chmod(0o755)
    (binaries / "python3").symlink_to(sys.executable)
    return {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "COLUMNS": "80"}


def asked(*arguments: object) -> Any:
    """What a command of ksm fleet says as JSON."""
    return json.loads(invoke("fleet", *arguments, "--json")[0])


def check_what_is_left(folder: Path, output: str, guests: int) -> dict[str, Any]:
    """The plan: it is what the page says, and what KSM does."""
    plan = asked("place", folder / "fleet", "--hosts", folder / "hosts.csv", "--apart", APART, "--least", "1MiB")
    placement = plan["placement"]
    rows = (folder / "new.csv").read_text().splitlines()
    assert rows == ["source,host", *(f"{name},{host}" for name, host in placement.items())]
    assert len(placement) == 6 + guests
    replicas = [host for name, host in placement.items() if "redis-server" in name]
    assert len(replicas) == 2 == len({*replicas})
    for host in plan["hosts"]:
        assert host["after"]["used"] <= host["limit"] == host["capacity"] * 9 // 10
    # Workers of an application that meet save 24 MiB, once for each of the two. Two guests save more than that.
    assert len(plan["moves"]) == 2 + guests // 2, output
    assert all(move["gain"] >= (24 << 20) // 4096 for move in plan["moves"])
    assert plan["saving"] >= 0.95 * plan["bound"]
    check = asked("check", folder / "fleet", "--placement", folder / "new.csv", "--compare")
    # No contents but zeros is there more than 256 times, which is where KSM keeps a second page.
    assert abs(check["saving"] - plan["saving"]) <= 0.01 * plan["saving"]
    assert abs(check["ledger"]["kept"] - plan["after"]) <= 0.01 * plan["after"]
    said = re.search(r"^Moving (\d+) of (\d+) sources would save ([\d.]+) MiB", output, re.MULTILINE)
    assert said is not None
    assert (int(said[1]), int(said[2])) == (len({move["source"] for move in plan["moves"]}), 6 + guests)
    assert abs(float(said[3]) - plan["saving"] / 256) < 0.1
    assert re.search(r"^KSM would free .* more than", output, re.MULTILINE)
    return {"plan": plan, "check": check}
