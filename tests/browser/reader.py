# SPDX-License-Identifier: GPL-2.0-only
"""What is in a page, without a browser."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """What is in a page: texts of scripts by id, tables by caption, all tags with their attributes, and the text that is seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.seen: list[str] = []
        self.inside = self.id = self.caption = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        self.inside = tag
        if tag == "script":
            self.id = attributes.get("id", "")
        elif tag == "table":
            self.tables[self.caption] = []
        elif tag == "tr":
            self.tables[self.caption].append([])
        elif tag in ("th", "td"):
            self.tables[self.caption][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[self.id] = self.scripts.get(self.id, "") + data
        elif self.inside == "summary":
            self.caption = data
        elif self.inside in ("th", "td"):
            self.tables[self.caption][-1][-1] += data
        if self.inside not in ("script", "style"):
            self.seen.append(data)
