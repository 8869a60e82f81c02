# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it has counters of all pages together, and knows no tenants.
"""What a scan may say besides, if it is asked: what pictures are made of, and what tenants have in common. closer.py finds it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ksm.estimate.page_map import Map

NO_TENANT = "no tenant"  # whose those sources are that no tenant has

HOW = (
    "A tenant who fills a page of his own, and times a write to it once ksmd has come by, learns whether another tenant has a page with "
    "these contents: a write to a merged page takes longer, because the page is copied first."
)
# The classes that are reported, the classes of pages that they stand for, and what a tenant can find out of another one by them
KINDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("zero", ("zero",), "Nothing: all tenants have pages of zeros."),
    ("one value", ("byte", "word"), "Little: that a page holds one value over and over, as memory does that was freed and poisoned."),
    (
        "text", ("text",),
        "Whether another tenant has exactly this text: a configuration, a document, a page of a web site. Where all but a secret is known, "
        "each guess of the secret can be tried.",
    ),
    ("code", ("code",), "Which programs and libraries another tenant runs, and in which versions, and so which faults they have."),
    (
        "pointers", ("pointers",),
        "Whether another tenant has the same structures at the same addresses. That defeats the randomisation of his addresses.",
    ),
    ("other", ("other",), "Whether another tenant has exactly these data: a part of a file, a table, an image."),
    ("unknown", (), "What these pages are is not known: their bytes could not be read again."),
)  # fmt: skip


class Kind(NamedTuple):
    """Contents of one class that several tenants have.

    contents  how many
    pages     of all tenants that have them
    frames    freed because tenants share: each content is kept once, and each of its tenants but one would need a frame
    tenants   the pages of each tenant, in the order of Tenants.tenants
    tells     what another tenant can find out by them
    """

    name: str
    contents: int
    pages: int
    frames: int
    tenants: list[int]
    tells: str


class Tenant(NamedTuple):
    """A tenant: his sources, his pages, how many of these are merged with another tenant's, and what merging would free of his alone."""

    name: str
    sources: list[str]
    pages: int
    merged: int
    apart: int


class Tenants(NamedTuple):
    """What is merged across tenants. Sources that are no tenant's are the last tenant, NO_TENANT, if there are any.

    freed  pages that are freed with all tenants in one machine, as the ledger has them
    apart  pages that are freed with each tenant in a machine of his own
    """

    tenants: list[Tenant]
    kinds: list[Kind]
    freed: int
    apart: int

    @property
    def cost(self) -> int:
        """Pages that it costs to forbid merging across tenants."""
        return self.freed - self.apart

    @property
    def merged(self) -> int:
        """Pages that are merged with those of another tenant."""
        return sum(kind.pages for kind in self.kinds)

    def as_json(self) -> dict[str, Any]:
        names = [tenant.name for tenant in self.tenants]
        return {
            "tenants": [tenant._asdict() for tenant in self.tenants],
            "how": HOW,
            "classes": [
                {**kind._asdict(), "tenants": dict(zip(names, kind.tenants, strict=True))} for kind in self.kinds
            ],
            "merged": self.merged,
            "freed": self.freed,
            "apart": self.apart,
            "cost": self.cost,
        }


class Content(NamedTuple):
    """What equal pages have.

    pages    that have it
    frames   that are kept for it: one for each max_page_sharing pages; 0 where it has become the kernel's zero page
    sources  that have it
    source   the name of one of them
    address  of the first page there, in the source's own addresses: virtual ones, offsets in a file, or physical ones
    kind     its class, a word of CLASSES; "unknown" where its bytes could not be read again
    bytes    its first LOOK bytes; None where nobody asked, or they could not be read again
    """

    pages: int
    frames: int
    sources: int
    source: str
    address: int
    kind: str
    bytes: bytes | None

    @property
    def freed(self) -> int:
        return self.pages - self.frames

    def as_json(self) -> dict[str, Any]:
        data = {**self._asdict(), "freed": self.freed, "bytes": self.bytes.hex() if self.bytes is not None else None}
        data["class"] = data.pop("kind")
        return data


class Matrix(NamedTuple):
    """pages[a][b]: how many pages of the source names[a] have contents that names[b] has, too; of a itself, that another page of a has."""

    names: list[str]
    pages: list[list[int]]


class Details(NamedTuple):
    """What became of the pages of each source, by STATES; a map of them; contents that free most; and who shares with whom."""

    states: list[dict[str, int]]
    map: Map
    contents: list[Content]
    matrix: Matrix

    def as_json(self) -> dict[str, Any]:
        return {
            "states": self.states, "map": self.map.as_json(), "contents": [content.as_json() for content in self.contents],
            "matrix": self.matrix._asdict(),
        }  # fmt: skip
