# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""The page of a report, whatever the report is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksm.estimate import report, sweep_report, why_report
from ksm.estimate.result import Result
from ksm.estimate.sweep import Sweep
from ksm.estimate.why import Why
from ksm.fleet import sharing_text
from ksm.fleet.matrices import Matrix
from ksm.fleet.sharing import FleetReport
from ksm.pictures import of_fleet, of_placement, of_scan, of_sweep, of_why, page

if TYPE_CHECKING:
    from ksm.fleet.placing.plan import Plan  # which needs numpy


def html(found: Result | Sweep | Why | FleetReport | Matrix | Plan) -> str:
    """The page of a scan's result, of a fleet's report, or of what ksm.sweep(), ksm.why(), ksm.fleet.matrix() or ksm.fleet.place() returns,
    as text. PicturesError without the packages.
    """
    page.need_altair()
    if isinstance(found, Result):
        data = report.as_json(found)
        return page.render(of_scan.page_of(data, report.answer(found)), data)
    if isinstance(found, Why):
        data = {**why_report.as_json(found), "map": of_why.map_of(found)}
        return page.render(of_why.page_of(data, why_report.answer(found)), data)
    if isinstance(found, FleetReport):
        data = sharing_text.as_json(found)
        return page.render(of_fleet.page_of(data, sharing_text.answer(found)), data)
    if isinstance(found, Matrix):
        data = found.json(of_fleet.MOST_ROWS)
        return page.render(of_fleet.matrix_page(data, found.blocks()), data)
    if isinstance(found, Sweep):
        data = sweep_report.as_json(found)
        return page.render(of_sweep.page_of(data, sweep_report.answer(found), sweep_report.notes(found)), data)
    data = found.json()
    return page.render(of_placement.page_of(data, found.answer), data)
