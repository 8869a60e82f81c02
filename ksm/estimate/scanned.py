# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what `ksm scan` prints, as an object.
"""What ksm.scan() returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ksm.constants import PAGE_SIZE
from ksm.estimate import report
from ksm.estimate.answers import opened, refusals, texts_of
from ksm.estimate.arguments import check_arguments
from ksm.estimate.closer import CloserScan
from ksm.estimate.found import NO_TENANT
from ksm.estimate.ledger import Ledger
from ksm.estimate.result import Result
from ksm.estimate.scan import Scan, Zeros
from ksm.estimate.settings import check_settings
from ksm.sources import Which
from ksm.sources.advice import of_which

if TYPE_CHECKING:
    from ksm.machine import _Era as Era


class Report:
    """What KSM would save, as ksm.scan() has found it. str() of it is what `ksm scan` prints."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def __repr__(self) -> str:
        return f"<ksm report: {self.answer}>"

    def __str__(self) -> str:
        return self.text()

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        return report.answer(self._result)

    @property
    def freed(self) -> int:
        """Bytes that merging frees, with those that the running kernel's KSM has freed already."""
        return self._result.ledger.freed * PAGE_SIZE

    @property
    def profit(self) -> int:
        """Bytes that are freed, less those of KSM's own structures. It may be less than 0."""
        return self._result.ledger.profit

    @property
    def ledger(self) -> Ledger:
        """What became of the pages, in pages: each is in one of its lines."""
        return self._result.ledger

    @property
    def settled(self) -> bool:
        """Whether the last pass changed nothing."""
        return self._result.settled

    @property
    def notes(self) -> list[str]:
        """What to know before believing the figures: a sentence each."""
        return report.all_notes(self._result)

    def json(self) -> dict[str, Any]:
        """All of it as `ksm scan --json` prints it: docs/report.md names each entry. Pages are counts, everything else is in bytes."""
        return report.as_json(self._result)

    def text(self, width: int = 80) -> str:
        """What `ksm scan` prints on a terminal of this many columns, without colours."""
        lines = [text for text, _ in report.lines(self._result, width)]
        if self._result.tenants is not None:
            from ksm.estimate import tenants_report

            lines += ["", *(text for text, _ in tenants_report.lines(self._result.tenants, width))]
        return "\n".join(lines) + "\n"

    def html(self, path: str | None = None) -> str:
        """The page of `ksm scan --html`, which is written to a file, too, if there is a path. Without scan(details=True) it has no map, and
        nothing on single sources and contents. ImportError where altair or vl-convert-python is missing; OSError.
        """
        from ksm.pictures import page
        from ksm.pictures.html import html

        try:
            text = html(self._result)
        except page.PicturesError as error:
            raise ImportError(str(error)) from None
        if path is not None:
            page.write(path, text)
        return text


def scan_of(
    texts: Sequence[str], *, settings: Mapping[str, str | int], era: Era, passes: int | None, interval: float | None, budget: float,
    which: Which, zeros: Zeros, exact: bool, threads: int | None, tenants: Mapping[str, Sequence[str]], details: bool, contents: bool,
) -> Report:  # fmt: skip
    """See ksm.scan()."""
    check_arguments(
        texts, era=era, which=which, zeros=zeros, threads=threads, passes=passes, interval=interval, budget=budget,
    )  # fmt: skip
    if NO_TENANT in tenants:
        raise ValueError(f"{NO_TENANT!r} is the name of all other sources")
    owned: dict[str, str] = {}
    for name, each in tenants.items():
        for text in each:
            if owned.setdefault(text, name) != name:
                raise ValueError(f"{text} is {owned[text]}'s, and cannot be {name}'s, too")
    knobs = texts_of(settings)
    with refusals():
        check_settings(knobs, era)  # before memory is read
    with refusals(), opened([*texts, *(text for text in owned if text not in texts)], which) as (sources, remarks):
        by_name = {name: [source for source in sources if owned.get(source.text) == name] for name in tenants} if tenants else None
        more = {"details": details or contents, "contents": contents, "tenants": by_name} if details or contents or tenants else {}
        make: Callable[..., Scan] = CloserScan if more else Scan
        with make(
            sources, settings=knobs, era=era, exact=exact or None, threads=threads,
            zeros=zeros, **more,
        ) as running:  # fmt: skip
            result = running.run(passes, interval, budget)
        result.notes[:0] = of_which(sources, which)
        result.notes.extend(remarks)
    return Report(result)
