# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it knows no tenants.
"""Tenants in the report of a scan, for a person."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ksm.constants import PAGE_SIZE
from ksm.estimate.found import HOW, Tenants
from ksm.estimate.report import LEAST_NAME, columns, mib, shortened
from ksm.estimate.terminal import amount, print_lines
from ksm.host.text import printable

NAME = 24  # columns of a tenant's name
INDENT = 2


def lines(tenants: Tenants, width: int) -> Iterator[tuple[str, bool]]:
    """The lines, `width` columns wide, and whether each is bold."""
    if tenants.merged:
        said = (
            f"{in_bytes(tenants.merged)} of pages merge with those of another tenant. To forbid that would cost {in_bytes(tenants.cost)} "
            f"of the {in_bytes(tenants.freed)}: with a machine for each tenant, {in_bytes(tenants.apart)} are freed."
        )
    else:
        said = f"No page merges with one of another tenant; with a machine for each tenant, {in_bytes(tenants.apart)} are freed, too."
    yield from ((line, True) for line in textwrap.wrap(said, width))
    yield "", False
    heads = ("MiB", "in common", "alone")
    rows = [[mib(pages * PAGE_SIZE) for pages in (tenant.pages, tenant.merged, tenant.apart)] for tenant in tenants.tenants]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    most = max(LEAST_NAME, min(NAME, width - sum(widths) - 2 * len(widths)))
    names = [shortened(printable(tenant.name), most) for tenant in tenants.tenants]
    room = max(map(columns, ["Tenant", *names]))
    for name, row in zip(["Tenant", *names], [heads, *rows], strict=True):
        figures = "".join(f"  {figure:>{wide}}" for figure, wide in zip(row, widths, strict=True))
        yield name + " " * (room - columns(name)) + figures, row is heads
    yield from ((line, False) for line in textwrap.wrap(
        "(in common: merged with another tenant's; alone: freed of his pages in a machine of their own)", width))
    if tenants.merged:
        yield "", False
        yield from ((line, False) for line in textwrap.wrap(HOW, width))
    for kind in tenants.kinds:
        if kind.contents:
            yield "", False
            yield f"{kind.name}: {kind.contents:,} content{'' if kind.contents == 1 else 's'} in {kind.pages:,} pages", True
            yield from ((line, False) for line in textwrap.wrap(kind.tells, width, initial_indent=" " * INDENT,
                                                                subsequent_indent=" " * INDENT))


def in_bytes(pages: int) -> str:
    return amount(pages * PAGE_SIZE)


def print_tenants(tenants: Tenants, width: int) -> None:
    print_lines([("", False), *lines(tenants, width)])
