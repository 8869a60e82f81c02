# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""What a sample of contents says of all: a count, its standard error, and an interval that holds the true count in 95 of 100 cases.

Each contents is in the sample with the probability 1/N, whatever the others are, as its fingerprint says. So the number of those of C
contents that are in it has a binomial distribution.
"""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import NamedTuple

Z = 1.959964  # standard deviations of a normal distribution to each side hold 95 %


class Estimate(NamedTuple):
    """`value` is N * c, of c contents in the sample; `error` is its standard error sqrt(C * (N - 1)), with the estimate for C. `low` and
    `high` are the ends of the interval, both among the counts that may be.
    """

    value: int
    error: float
    low: int
    high: int


def estimate(counted: int, sample: int) -> Estimate:
    """Of `counted` contents in a sample of one in `sample`. The interval has all C for which (c - C/N)^2 <= Z^2 * C/N * (1 - 1/N)."""
    if sample == 1:
        return Estimate(counted, 0.0, counted, counted)
    rest = Z * Z * (1 - 1 / sample)
    root = sqrt(rest * rest + 4 * counted * rest)
    low, high = (sample * (2 * counted + rest + sign * root) / 2 for sign in (-1, 1))
    value = counted * sample
    return Estimate(value, sqrt(value * (sample - 1)), max(counted, ceil(low)), floor(high))
