# SPDX-License-Identifier: GPL-2.0-only
"""What a scan of a file comes to: figures, or the one line that says why not."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ksm.estimate.scan import Scan
from ksm.sources import SourceError, open_file
from ksm.sources.input import Holes


def counts(path: str | os.PathLike[str], *, exact: bool = False, holes: Holes | None = None, threads: int = 2) -> dict[str, Any]:
    """Pages, savings and KSM's counters of a scan of one file. They must not depend on the form in which memory lies in the file."""
    source = open_file(str(path), holes)
    try:
        with Scan([source], exact=exact, threads=threads) as scan:
            result = scan.run()
    finally:
        source.close()
    return {"pages": result.pages, **result.savings._asdict(), **result.ksm, "passes": result.passes}


def line_of(path: str | os.PathLike[str], holes: Holes | None = None) -> str | None:
    """The one line for which a file is refused, without its name; None if it is scanned."""
    name = str(path)
    try:
        counts(path, holes=holes, threads=1)
    except SourceError as error:
        text = str(error)
        assert "\n" not in text
        if text.startswith("not enough memory: the scan needs "):  # of all sources together
            return text
        assert text.startswith(f"{name}: ")
        return text.removeprefix(f"{name}: ")
    return None


def refusal(path: str | os.PathLike[str], holes: Holes | None = None) -> str:
    text = line_of(path, holes)
    if text is None:
        pytest.fail(f"{path} is scanned")
    return text


def same_but_for_the_name(report: str) -> list[str]:
    """The lines of a report, but for those that name the source, and for the command to type next, which a pipe has not."""
    lines = report.partition("\nNext: ")[0].splitlines()
    assert lines
    return [line for line in lines if " image " not in line and "─" not in line and "---" not in line and "Source" not in line]
