# SPDX-License-Identifier: GPL-2.0-only
"""The words that the page explains are those of docs/glossary.md."""

from pathlib import Path

import pytest

from ksm.study.glossary import LEFT_OUT, parse, terms

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[2] / "docs/glossary.md"


def test_the_page_has_the_text_of_the_docs():
    """Made by: python -m ksm.study.glossary docs/glossary.md"""
    found = parse(DOCS.read_text(encoding="utf-8"))
    assert found == terms() and len(found) > 25
    assert {"stable tree", "unstable tree", "rmap_item", "checksum", "volatile", "CoW", "stable node"} <= set(found)


def test_what_is_left_out_is_in_the_docs():
    named = {name for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("**")
             for name in line.split("**")[1].split(", ")}
    assert named == LEFT_OUT | set(terms())


def test_texts_have_no_traces_of_the_docs():
    for term, text in terms().items():
        assert not text[0].islower() and text.endswith(".") and len(text) > 15, term
        assert not any(sign in text for sign in ("`", "**", "](", ".pyx", ".md", ".pxd")), term
