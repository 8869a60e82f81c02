# SPDX-License-Identifier: GPL-2.0-only
"""Arguments that make no sense: ksm.scan(), why(), sweep(), advise() and watch() refuse them before they open a source."""

import inspect
import math

import pytest

import ksm
from ksm.estimate.pace import BUDGET

MISSING = ["/no/such/file"]
ALL = (ksm.scan, ksm.why, ksm.sweep, ksm.watch, ksm.advise)
REFUSED = [
    ({"era": "9"}, ALL, "era is one of 7.3, 6.12, 6.1, 2.6.38, not '9'"),
    ({"threads": 0}, ALL, "threads is 1 at least, not 0"),
    ({"which": "all"}, ALL[:4], "which is one of prctl, advised, is, not 'all'"),
    ({"zeros": "no"}, ALL[:4], "zeros is one of apart, count, not 'no'"),
    ({"passes": 0}, ALL[:2], "passes is 1 at least, not 0"),
    ({"count": 0}, ALL[3:4], "count is 1 at least, not 0"),
    ({"budget": math.nan}, (ksm.scan, ksm.why, ksm.watch), "budget is 0 to 2,592,000 seconds, not nan"),
    ({"interval": -1}, (ksm.scan, ksm.why, ksm.sweep, ksm.advise), "interval is 0 to 2,592,000 seconds, not -1"),
    ({"interval": math.inf}, (ksm.scan, ksm.why, ksm.sweep, ksm.advise), "interval is 0 to 2,592,000 seconds, not inf"),
    ({"cost": 1e300}, (ksm.sweep,), "cost is above 0 and at most 1e9 nanoseconds, not 1e\\+300"),
    ({"cost": math.nan}, (ksm.sweep,), "cost is above 0 and at most 1e9 nanoseconds, not nan"),
    ({"vary": {"smart_scan": []}}, (ksm.sweep,), "smart_scan has no value to try"),
    ({"vary": {"run": [0, 1]}}, (ksm.sweep,), "run: ksmd runs for every row"),
]


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [pytest.param(function, arguments, said, id=f"{function.__name__}-{said}") for arguments, some, said in REFUSED for function in some],
)
def test_refused(function, arguments, said):
    with pytest.raises(ValueError, match=said):
        function(MISSING, **arguments)


@pytest.mark.parametrize("function", ALL)
def test_sources_are_no_string(function):
    with pytest.raises(TypeError, match="a sequence of strings"):
        function("pid:1")


@pytest.mark.parametrize("function", [ksm.scan, ksm.why, ksm.watch])
def test_the_budget_is_that_of_the_commands(function):
    assert inspect.signature(function).parameters["budget"].default == BUDGET
