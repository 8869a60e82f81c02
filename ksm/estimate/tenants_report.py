# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it knows no tenants.
"""Tenants in the report of a scan, for a person."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ksm.constants import PAGE_SIZE
from ksm.estimate.found import HOW, Tenants
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
    names = [shortened(printable(tenant.name)) for tenant in tenants.tenants]
    room = max(len(name) for name in ["Tenant", *names])
    yield f"{'Tenant':<{room}}  {'MiB':>9}  {'in common':>9}  {'alone':>9}", True
    for name, tenant in zip(names, tenants.tenants, strict=True):
        figures = "  ".join(f"{pages * PAGE_SIZE / (1 << 20):>9,.1f}" for pages in (tenant.pages, tenant.merged, tenant.apart))
        yield f"{name:<{room}}  {figures}", False
    yield from ((line, False) for line in textwrap.wrap(
        "(in common: merged with another tenant's; alone: freed of his pages in a machine of their own)", width))
    if tenants.merged:
        yield "", False
        yield from ((line, False) for line in textwrap.wrap(HOW, width))
    for kind in tenants.kinds:
        if kind.contents:
            yield "", False
            yield f"{kind.name}: {kind.contents:,} contents in {kind.pages:,} pages", True
            yield from ((line, False) for line in textwrap.wrap(kind.tells, width, initial_indent=" " * INDENT,
                                                                subsequent_indent=" " * INDENT))


def in_bytes(pages: int) -> str:
    return amount(pages * PAGE_SIZE)


def shortened(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


def print_tenants(tenants: Tenants, width: int) -> None:
    print_lines([("", False), *lines(tenants, width)])
