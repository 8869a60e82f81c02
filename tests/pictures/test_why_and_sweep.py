# SPDX-License-Identifier: GPL-2.0-only
"""The pages of ksm why and ksm sweep: their numbers are those of --json."""

import json

import pytest
from commands import invoke, refused
from reader import Reader

import ksm

pytest.importorskip("vl_convert")
of_why = pytest.importorskip("ksm.pictures.of_why")  # which needs altair
html = pytest.importorskip("ksm.pictures.html").html


def number(text):
    return float(text.replace(",", ""))


def test_the_page_of_a_sweep(images, tmp_path):
    path = tmp_path / "sweep.html"
    out, _ = invoke("sweep", images["web"], images["db"], "--vary", "use_zero_pages=0,1", "--cost", 1000, "--html", path, "--json")
    data, page = json.loads(out), Reader(path.read_text())
    assert json.loads(page.scripts["report"]) == data
    rows = page.tables["Settings"][1:]
    assert [row[0] for row in rows] == [row["name"] for row in data["rows"]]
    assert [number(row[1]) for row in rows] == [pytest.approx(row["ledger"]["freed"] / 256, abs=0.051) for row in data["rows"]]
    rows = page.tables["What is freed after each pass"][1:]
    assert [number(row[3]) for row in rows] == [
        pytest.approx(pages / 256, abs=0.051) for row in data["rows"] for _, pages in row["curve"]
    ]
    assert {"chart-settings", "chart-curves", "chart-cost"} <= page.scripts.keys()
    text = path.read_text()
    assert "of all: of the " in text
    assert "CPU: ksmd&#39;s share of a processor from then on, at 1,000 ns a page (as given with --cost)" in text


def test_the_page_of_why(images, tmp_path):
    path = tmp_path / "why.html"
    out, _ = invoke("why", images["web"], images["<img src=x onerror=alert(1)>"], "--html", path, "--json")
    data, page = json.loads(out), Reader(path.read_text())
    inside = json.loads(page.scripts["report"])
    found = inside.pop("map")
    assert inside == data
    rows = page.tables["Pages by reason"][1:]
    assert [number(row[2]) for row in rows] == [each["pages"] for each in data["reasons"] if each["name"] != of_why.ABSENT]
    assert found["states"] == [each["name"] for each in data["reasons"] if each["name"] != of_why.ABSENT]
    assert sum(found["cells"]) == sum(each["pages"] for each in data["reasons"] if each["name"] != of_why.ABSENT)
    rows = page.tables["Pages of each mapping, by reason"][1:]
    assert sum(number(cell) for row in rows for cell in row[1:]) == sum(found["cells"])
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_pages_of_objects(images):
    assert 'id="map"' in html(ksm.why([images["web"]]))
    found = ksm.sweep([images["web"]], {"use_zero_pages": [0, 1]}, cost=1000.0, rules=False)
    assert json.loads(Reader(html(found)).scripts["report"])["cost"] == 1000


def test_a_sweep_that_was_interrupted_at_once_has_a_page(images):
    found = ksm.sweep([images["web"]], {"use_zero_pages": [0, 1]}, cost=1000.0, rules=False)
    assert "Interrupted: 0 of 2 settings are done" in html(found._replace(rows=[]))


def test_the_story_of_a_page_has_no_page(images, tmp_path):
    assert "--html is for all pages" in refused("why", images["web"], "0x0", "--html", tmp_path / "why.html", code=2)
