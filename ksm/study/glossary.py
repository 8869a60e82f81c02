# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the words of the page.
"""The glossary under the words of the page. docs/glossary.md is its text; glossary.json is made from it, because a wheel has no docs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

FILE = Path(__file__).with_name("glossary.json")
# Words of the glossary that mean too much else in a sentence about pages
LEFT_OUT = {
    "address space", "arena", "book", "class", "decision", "fingerprint file", "folio", "full scan", "key", "ledger", "look ahead",
    "machine", "oracle", "page", "pass", "plain machine", "seam", "slot", "snapshot", "source", "substrate", "watched page", "workload",
}


def parse(text: str) -> dict[str, str]:
    """The terms of docs/glossary.md that the page explains, each with its text, as plain text without where to read on."""
    found = {}
    for part in text.split("\n\n")[1:]:
        entry = re.fullmatch(r"\*\*(.+?)\*\*(.*)", " ".join(part.split()))
        if not entry:
            continue
        said = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", entry[2].lstrip(":, "))
        said = re.sub(r"`|\*\*", "", said)
        # What is left of references: names of files, and titles of pages of docs/
        said = re.sub(r"(?<=\. )(ksm/[^ ]*|Eras\.|the look ahead\.|fingerprint files\.|the report\.)( |$)", "", said).strip()
        said = re.sub(r" (ksm/[\w/]+\.\w+(, [\w ]+)?|Eras)\.?$", "", said).strip()
        for name in entry[1].split(", "):
            if name not in LEFT_OUT:
                found[name] = said[0].upper() + said[1:]
    return found


def terms() -> dict[str, str]:
    """What the page explains: each term with its text."""
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    FILE.write_text(json.dumps(parse(Path(sys.argv[1]).read_text(encoding="utf-8")), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
