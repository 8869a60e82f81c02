# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""The page of a report, whatever the report is of."""

from __future__ import annotations

from ksm.estimate.scan import Result
from ksm.estimate.sweep import Sweep
from ksm.pictures import of_scan, of_sweep, page


def html(found: Result | Sweep) -> str:
    """The page, as text. PicturesError without altair and vl-convert-python."""
    page.need_altair()
    if isinstance(found, Result):
        from ksm.estimate import report

        data = report.as_json(found)
        return page.render(of_scan.page_of(data, report.answer(found)), data)
    from ksm.estimate import sweep_report

    data = sweep_report.as_json(found)
    return page.render(of_sweep.page_of(data, sweep_report.answer(found)), data)
