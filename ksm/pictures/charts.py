# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""Charts, as Vega-Altair makes them. Colours are variables of the page's style, so that light, dark and print need no other chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair

LARGEST_LABEL = 220  # pixels of a name beside a chart
ROW = 26  # pixels of a bar
FONT = 'system-ui, "DejaVu Sans", sans-serif'  # that of the page: Vega measures words with it
MOST_TICKS = 20
INK, FAINT = "var(--ink)", "var(--line)"


def colours(keys: Sequence[str]) -> list[str]:
    return [f"var(--c-{key})" for key in keys]


def finished(chart: Any, description: str) -> dict[str, Any]:
    """The specification of a chart, which fills the width that there is."""
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    lines = {"gridColor": FAINT, "domainColor": INK, "tickColor": INK}
    chart = (
        chart.properties(width="container", description=description, background="transparent", padding=4)
        .properties(autosize=altair.AutoSizeParams(type="fit-x", contains="padding"))
        .configure(font=FONT)
        .configure_axis(labelLimit=LARGEST_LABEL, labelSeparation=4, **text, **lines)
        .configure_axisQuantitative(labelFlush=False, labelOverlap="greedy")
        .configure_legend(orient="bottom", direction="vertical", labelLimit=320, symbolLimit=40, **text)
        .configure_view(stroke=None)
    )
    spec: dict[str, Any] = chart.to_dict()
    return spec


def bars(
    rows: list[dict[str, Any]], names: Sequence[str], parts: Mapping[str, str], *, unit: str, description: str,
    keys: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Stacked bars, one for each name. Rows have name, part (a key of `parts`) and value; `parts` say what a part is called,
    and `keys` what the colour of each is called, if it is not the part.
    """
    order = list(parts)
    data = [
        {"name": row["name"], "what": parts[row["part"]], "value": row["value"], "order": order.index(row["part"])}
        for row in rows if row["value"]
    ]
    there = [part for part in order if any(row["part"] == part and row["value"] for row in rows)]
    scale = altair.Scale(domain=[parts[key] for key in there], range=colours([(keys or {}).get(key, key) for key in there]))
    chart = (
        altair.Chart(altair.InlineData(values=data), height=ROW * len(names))
        .mark_bar()
        .encode(
            y=altair.Y("name:N", title=None, sort=list(names), scale=altair.Scale(domain=list(names))),
            x=altair.X("value:Q", title=unit, axis=altair.Axis(tickCount=6)),
            color=altair.Color("what:N", title=None, scale=scale),
            order=altair.Order("order:Q"),
            tooltip=[altair.Tooltip("name:N", title="of"), altair.Tooltip("what:N", title="what"),
                     altair.Tooltip("value:Q", title=unit, format=",.1f")],
        )
    )
    return finished(chart, description)


def lines(
    rows: list[dict[str, Any]], parts: Mapping[str, str], *, x: str, unit: str, description: str, whole: bool = True
) -> dict[str, Any]:
    """Lines with points, one for each part. Rows have x, part and value. `whole`: x counts; else it is more
    than 0, and on a logarithmic scale.
    """
    there = [part for part in parts if any(row["part"] == part for row in rows)]
    data = [{"x": row["x"], "what": parts[row["part"]], "value": row["value"]} for row in rows]
    scale = altair.Scale(domain=[parts[key] for key in there], range=colours(there))
    ticks = sorted({row["x"] for row in rows})
    axis = altair.Axis(values=ticks, format="d") if whole and len(ticks) <= MOST_TICKS else altair.Axis(tickCount=8, format="~g")
    along = altair.Scale(nice=False, zero=False) if whole else altair.Scale(type="log", nice=False)
    chart = (
        altair.Chart(altair.InlineData(values=data), height=260)
        .mark_line(point=altair.OverlayMarkDef(size=40), strokeWidth=2)
        .encode(
            x=altair.X("x:Q", title=x, axis=axis, scale=along),
            y=altair.Y("value:Q", title=unit, axis=altair.Axis(tickCount=6)),
            color=altair.Color("what:N", title=None, scale=scale),
            strokeDash=altair.StrokeDash("what:N", title=None, scale=altair.Scale(domain=[parts[key] for key in there])),
            tooltip=[altair.Tooltip("what:N", title="what"), altair.Tooltip("x:Q", title=x),
                     altair.Tooltip("value:Q", title=unit, format=",.1f")],
        )
    )
    return finished(chart, description)


def heat(rows: list[dict[str, Any]], names: Sequence[str], *, titles: tuple[str, str, str], description: str) -> dict[str, Any]:
    """Cells of two names, a and b, the darker the larger the share (0 to 1). Rows have a, b, share and value."""
    down, right, unit = titles
    chart = (
        altair.Chart(altair.InlineData(values=rows), height=len(names) * max(14, min(ROW, 480 // len(names))))
        .mark_rect(fill="var(--accent)", stroke=FAINT, strokeWidth=0.5)
        .encode(
            y=altair.Y("a:N", title=down, sort=list(names)),
            x=altair.X("b:N", title=right, sort=list(names), axis=altair.Axis(labelAngle=-45, labelLimit=140)),
            fillOpacity=altair.FillOpacity("share:Q", title=None, scale=altair.Scale(domain=[0, 1], range=[0, 1]), legend=None),
            tooltip=[altair.Tooltip("a:N", title=down), altair.Tooltip("b:N", title=right),
                     altair.Tooltip("value:Q", title=unit, format=",.1f"), altair.Tooltip("share:Q", title="share", format=".1%")],
        )
    )
    return finished(chart, description)


def points(rows: list[dict[str, Any]], *, x: str, unit: str, description: str) -> dict[str, Any]:
    """A point for each row, which has name, x, value, and best, 1 or 0: the best ones are filled."""
    chart = (
        altair.Chart(altair.InlineData(values=rows), height=260)
        .mark_point(size=90, stroke="var(--accent)", fill="var(--accent)", strokeWidth=2)
        .encode(
            x=altair.X("x:Q", title=x, scale=altair.Scale(zero=True)),
            y=altair.Y("value:Q", title=unit, axis=altair.Axis(tickCount=6)),
            fillOpacity=altair.FillOpacity("best:Q", scale=altair.Scale(domain=[0, 1], range=[0, 1]), legend=None),
            tooltip=[altair.Tooltip("name:N", title="setting"), altair.Tooltip("x:Q", title=x),
                     altair.Tooltip("value:Q", title=unit, format=",.1f")],
        )
    )
    return finished(chart, description)
