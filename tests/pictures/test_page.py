# SPDX-License-Identifier: GPL-2.0-only
"""The page of a scan: its numbers are those of --json, names are no markup, and it asks nothing of a network."""

import json
import re
import stat
import sys

import pytest
from commands import invoke, refused
from reader import Reader

from ksm.pictures.sections import STATES, distinct

pytest.importorskip("vl_convert")
of_scan = pytest.importorskip("ksm.pictures.of_scan")  # which needs altair


@pytest.fixture(scope="module")
def made(page_of_images):
    """The page of three images with two tenants, what it has, and what --json printed beside it."""
    path, printed = page_of_images
    return path, Reader(path.read_text()), printed


def number(text):
    return float(text.replace(",", ""))


def test_the_page_has_the_json_of_the_report(made):
    _, page, data = made
    assert json.loads(page.scripts["report"]) == data


def test_the_numbers_of_the_page_are_those_of_the_json(made):
    _, page, data = made
    ledger = data["ledger"]
    rows = {row[0]: number(row[1]) for row in page.tables["Pages by what became of them"][1:]}
    assert rows == {text: ledger[key] for key, text in of_scan.LEDGER}
    states = {source["name"]: each for source, each in zip(data["sources"], data["details"]["states"], strict=True)}
    head, *rows = page.tables["Pages of each source"]
    keys = [next(key for key in STATES if STATES[key] == text) for text in head[3:]]
    assert {row[0] for row in rows} == set(states)
    for row in rows:
        assert [number(cell) for cell in row[3:]] == [states[row[0]][key] for key in keys]
        assert number(row[2]) == sum(states[row[0]].values())
    rows = page.tables["Counters after each pass"][1:]
    assert [number(row[2]) for row in rows] == [each["pages_sharing"] for each in data["history"]]
    rows = page.tables["Contents that free most"][1:]
    assert [(row[1], number(row[2]), number(row[3])) for row in rows] == [
        (each["class"], each["pages"], each["freed"]) for each in data["details"]["contents"]
    ]
    rows = page.tables["Pages of a row that are also in a column"][1:]
    assert [[number(cell) for cell in row[1:]] for row in rows] == data["details"]["matrix"]["pages"]
    rows = page.tables["Merged across tenants, by class"][1:]
    assert [(row[0], number(row[2])) for row in rows] == [(each["name"], each["pages"]) for each in data["tenants"]["classes"]]


def test_charts_have_the_numbers_of_the_tables(made):
    _, page, data = made
    chart = json.loads(page.scripts["chart-sources"])
    sums = {}
    for row in chart["datasets"][chart["data"]["name"]]:
        sums[row["what"]] = sums.get(row["what"], 0) + row["value"]
    for key, text in STATES.items():
        wanted = sum(each[key] for each in data["details"]["states"]) * 4096 / (1 << 20)
        assert sums.get(text, 0) == pytest.approx(wanted, abs=0.002)


def test_each_picture_has_a_table_and_words(made):
    _, page, _ = made
    figures = [attributes for tag, attributes in page.tags if tag == "figure"]
    assert len(figures) == 6 and all(figure["aria-label"] for figure in figures)
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == ["pages", "tenants", "sources", "map", "contents", "matrix", "passes", "notes"]
    assert len(page.tables) == 8


def test_names_are_no_markup(made, images):
    path, page, _ = made
    assert not [tag for tag, attributes in page.tags if tag in ("img", "b") or any(name.startswith("on") for name in attributes)]
    assert any("<img src=x onerror=alert(1)>" in text for text in page.seen)
    assert "<img src=x" not in path.read_text()


def test_nothing_is_loaded(made):
    """What a browser would fetch is the page's icon alone, which is in it; and the policy forbids all else."""
    _, page, _ = made
    loading = ("src", "href", "srcset", "data", "action")
    loads = [value for tag, attributes in page.tags for name, value in attributes.items() if name in loading]
    assert all(value.startswith(("#", "data:")) for value in loads)
    [policy] = [attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "http" not in policy and "unsafe-eval" not in policy
    assert re.search(r"script-src ('sha256-[A-Za-z0-9+/=]+' ?){2}$", policy)


def test_contents_are_left_out_unless_asked_for(images, tmp_path):
    path = tmp_path / "page.html"
    invoke("scan", images["web"], images["db"], "--html", path)
    text = path.read_text()
    assert "several have" not in text and "--contents puts the first bytes of each in" in text
    invoke("scan", images["web"], images["db"], "--html", path, "--contents")
    assert "several have" in path.read_text()


def test_the_report_is_printed_as_without_the_page(images, tmp_path):
    assert invoke("scan", images["web"], "--html", tmp_path / "page.html") == invoke("scan", images["web"])


def test_the_page_is_its_owners_alone(made):
    assert stat.S_IMODE(made[0].stat().st_mode) == 0o600


def test_nothing_to_merge_is_a_page_too(tmp_path):
    (tmp_path / "one").write_bytes(bytes(range(256)) * 16)
    invoke("scan", tmp_path / "one", "--html", tmp_path / "page.html")
    assert "no two pages are equal" in (tmp_path / "page.html").read_text()
    (tmp_path / "zeros").write_bytes(bytes(4096))
    invoke("scan", tmp_path / "zeros", "--html", tmp_path / "page.html")
    assert "There are no pages that KSM could merge" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("era", ["6.1", "2.6.38"])
def test_an_era_has_the_counters_that_it_had(images, tmp_path, era):
    invoke("scan", images["web"], images["db"], "--era", era, "--html", tmp_path / "page.html")


def test_the_same_image_twice_and_names_that_are_no_text(images, tmp_path):
    name = "x\udcff.img"
    (tmp_path / name).write_bytes(b"same" * 1024 * 2)
    invoke("scan", tmp_path / name, tmp_path / name, "--html", tmp_path / "page.html")
    assert "x?.img (2)" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert distinct(["a", "a", "a (2)"]) == ["a", "a (2)", "a (2) (2)"]


def test_lines_of_hex():
    assert of_scan.dump(bytes(64) + b"<script>" + bytes(8)) == [
        "0000  " + "00 " * 16 + " " + "." * 16, "*", "0040  3c 73 63 72 69 70 74 3e " + "00 " * 8 + " <script>........",
    ]  # fmt: skip


def test_where_a_page_cannot_be_written(images, tmp_path):
    assert refused("scan", images["web"], "--html", tmp_path / "no/page.html").endswith("page.html: No such file or directory")
    assert "a file is needed" in refused("scan", images["web"], "--html", tmp_path, code=2)
    assert "a file is needed" in refused("scan", images["web"], "--html", "", code=2)
    assert "--contents is for the page of --html" in refused("scan", images["web"], "--contents", code=2)


def test_without_the_packages(images, tmp_path, monkeypatch):
    """Said before anything is read."""
    monkeypatch.setitem(sys.modules, "altair", None)
    assert refused("scan", "nothing", "--html", tmp_path / "page.html").endswith("pip install 'ksm[html]'")
