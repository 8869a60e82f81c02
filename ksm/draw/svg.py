# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pictures of a machine.
"""A machine as SVG: each process with its pages as tiles, the stable and the unstable tree."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ksm.draw.state import MOST_PAGES, Node, Space, State, Tile, state_of

if TYPE_CHECKING:
    from ksm.machine import Machine

WIDTH = 720
SIDE, GAP = 20, 3  # of a tile
ACROSS = (WIDTH - 2 * 16) // (SIDE + GAP)
WIDE, HIGH, RADIUS = 64, 54, 13  # a node's room, and its circle
COLOURS = {
    "merged": "#4caf6a", "zero": "#b9c0ca", "swapped": "#e4e7eb", "shared": "#a8c7f0", "unstable": "#e8b93c",
    "volatile": "#f0f2f5", "own": "#ffffff",
}
WORDS = {
    "merged": "merged", "unstable": "in the unstable tree", "volatile": "known to KSM",
    "shared": "shared with a forked process", "own": "not seen by KSM", "zero": "the zero page", "swapped": "swapped out",
}
# Inside a page of HTML a style holds for all of the page, hence the class of the picture in each rule.
STYLE = "".join(f".ksm-machine {rule}" for rule in (
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#1b1d21}", ".h{font-weight:700;font-size:12px}", ".s{fill:#616873}",
    ".m{text-anchor:middle}", ".i{fill:#fff;font-weight:700;font-size:10px}",
))


class Drawing(str):
    """SVG as text. A notebook shows the picture; print() and a file have the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<a picture of {len(self):,} characters of SVG>"

    def _repr_svg_(self) -> str:
        return str(self)


def draw(machine: Machine) -> Drawing:
    """Machine.draw()."""
    return svg_of(state_of(machine))


def svg_of(state: State) -> Drawing:
    out: list[str] = []
    y = 14
    if state.too_large:
        out.append(text(16, y + 12, f"More than {MOST_PAGES:,} pages are mapped: the counters tell more than a picture.", "s"))
        y += 26
    else:
        y = legend(state, out, y)
        for space in state.spaces:
            y = tiles(space, out, y)
        if state.more_processes:
            out.append(text(16, y + 12, f"and {state.more_processes:,} more processes", "s"))
            y += 24
        for name, nodes in (("Stable tree", state.stable), ("Unstable tree", state.unstable)):
            y = tree(name, nodes, out, y)
    width = max(WIDTH, *(32 + (max(node.x for node in nodes) + 1) * WIDE for nodes in (state.stable, state.unstable) if nodes), 0)
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ksm-machine" viewBox="0 0 {width} {y + 8}" width="{width}" height="{y + 8}" '
        f'role="img" aria-label="A machine with KSM: page tables, the stable tree, the unstable tree"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" rx="6" fill="#fff"/>{"".join(out)}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{clean(words)}</text>'


def clean(words: str) -> str:
    """Escaped, and without what XML cannot have."""
    return escape("".join(each if each.isprintable() else "?" for each in words))


def legend(state: State, out: list[str], y: int) -> int:
    kinds = [kind for kind in WORDS if any(tile.kind == kind for space in state.spaces for tile in space.tiles)]
    x = 16
    for kind in kinds:
        out.append(f'<rect x="{x}" y="{y}" width="11" height="11" rx="2" fill="{COLOURS[kind]}" stroke="#8b93a0"/>')
        out.append(text(x + 16, y + 10, WORDS[kind], "s"))
        x += 30 + 7 * len(WORDS[kind])
    return y + 24 if kinds else y


def tiles(space: Space, out: list[str], y: int) -> int:
    out.append(text(16, y + 11, f"{shortened(space.name, 60)} (pid {space.pid})", "h"))
    y += 18
    for number, tile in enumerate(space.tiles):
        column, row = number % ACROSS, number // ACROSS
        out.append(one_tile(tile, 16 + column * (SIDE + GAP), y + row * (SIDE + GAP)))
    y += -(-len(space.tiles) // ACROSS) * (SIDE + GAP)
    if space.more:
        out.append(text(16, y + 11, f"and {space.more:,} more pages", "s"))
        y += 16
    return y + 8


def one_tile(tile: Tile, x: int, y: int) -> str:
    where = f"frame {tile.frame}" if tile.frame >= 0 else WORDS[tile.kind]
    may = "may be written" if tile.writable else "write-protected"
    lines = (f"page {tile.number:#x}: {tile.text or '...'}", f"{where}, {WORDS[tile.kind]}, {may}")
    edge = "#24272c" if tile.writable else "#8b93a0"
    box = f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" rx="3" fill="{COLOURS[tile.kind]}" stroke="{edge}"/>'
    number = text(x + SIDE / 2, y + 14, str(tile.frame), "m") if 0 <= tile.frame < 1000 else ""
    return f"<g><title>{chr(10).join(map(clean, lines))}</title>{box}{number}</g>"


def tree(name: str, nodes: list[Node], out: list[str], y: int) -> int:
    out.append(text(16, y + 12, name, "h"))
    if not nodes:
        out.append(text(16 + 8 * len(name), y + 12, "empty", "s"))
        return y + 24
    y += 46
    spots = [(16 + (node.x + 0.5) * WIDE, y + node.y * HIGH) for node in nodes]
    for node, (a, b) in zip(nodes, spots, strict=True):
        if node.parent >= 0:
            c, d = spots[node.parent]
            out.append(f'<line x1="{c:g}" y1="{d:g}" x2="{a:g}" y2="{b:g}" stroke="#8b93a0"/>')
    for node, (a, b) in zip(nodes, spots, strict=True):
        colour = "#c62f3a" if node.red else "#24272c"
        shape = (f'<circle cx="{a:g}" cy="{b:g}" r="{RADIUS}" fill="{colour}"/>' if node.frame >= 0 else
                 f'<rect x="{a - 20:g}" y="{b - RADIUS}" width="40" height="{2 * RADIUS}" rx="3" fill="{colour}"/>')
        below = shortened(node.below, 9) + (f" + {node.hidden:,}" if node.hidden else "")
        out.append(f"<g><title>{clean(node.text)}</title>{shape}{text(a, b + 4, str(node.frame) if node.frame >= 0 else 'chain', 'm i')}"
                   f"{text(a, b - RADIUS - 4, shortened(node.text, 9), 'm')}{text(a, b + RADIUS + 11, below, 'm s')}</g>")
    return y + (max(node.y for node in nodes)) * HIGH + 46


def shortened(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
