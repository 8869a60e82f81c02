# SPDX-License-Identifier: GPL-2.0-only
"""The pages of ksm fleet report and matrix: their numbers are those of --json."""

import json

import pytest
from commands import invoke
from made import made, write_fleet
from reader import Reader

pytest.importorskip("vl_convert")
pytest.importorskip("ksm.pictures.of_fleet")  # which needs altair

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty machines on all hosts, one of which has a hostile name."""
    pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("fleet")
    machines = made(1)
    write_fleet(folder, [*machines[:59], machines[60]._replace(name="<img src=x onerror=alert(1)>", host="odd")])
    return folder


def number(text):
    return float(text.replace(",", ""))


def test_the_page_of_a_report(folder, tmp_path):
    path = tmp_path / "fleet.html"
    out, _ = invoke("fleet", "report", folder, "--tenant", "<b>blue</b>=vm00*", "--html", path, "--json")
    data, page = json.loads(out), Reader(path.read_text())
    assert json.loads(page.scripts["report"]) == data
    rows = page.tables["All pages"][1:]
    assert [number(row[1]) for row in rows] == [
        data["ledger"][name] for name in ("within", "same_host", "across_hosts", "kept", "zero", "pages")
    ]
    rows = page.tables["Classes, in pages"][1:]
    assert {row[0]: number(row[1]) for row in rows} == {each["name"]: each["pages"] for each in data["classes"]}
    hosts = {host["name"]: host for host in data["hosts"]}
    for row in page.tables["Hosts, in MiB"][1:]:
        assert number(row[3]) == pytest.approx(hosts[row[0]]["saved"] / 256, abs=0.051)
    groups = page.tables["Groups, in MiB"][1:]
    assert [number(row[5]) for row in groups] == [pytest.approx(group["gain"] / 256, abs=0.051) for group in data["groups"]]
    pairs = page.tables["Contents that both have"][1:]
    assert [number(row[2]) for row in pairs] == [pair["contents"] for pair in data["pairs"]]
    blocks = page.tables["Percent alike"][1:]
    assert len(blocks) == len(data["blocks"]["sources"]) == 48
    assert [[number(cell) for cell in row[1:]] for row in blocks] == [
        [pytest.approx(100 * value, abs=0.051) for value in row] for row in data["blocks"]["alike"]
    ]
    assert sorted(name for block in data["blocks"]["sources"] for name in block) == sorted(each["name"] for each in data["sources"])
    assert [row[0] for row in page.tables["Tenants"][1:]] == [each["name"] for each in data["tenants"]["tenants"]]
    assert {"chart-pages", "chart-hosts", "chart-matrix", "chart-groups"} <= page.scripts.keys()
    assert "<img src=x" not in path.read_text()


def test_the_page_of_a_matrix(folder, tmp_path):
    path = tmp_path / "matrix.html"
    out, _ = invoke("fleet", "matrix", folder, "--sample", "1/2", "--html", path, "--form", "json")
    data, page = json.loads(out), Reader(path.read_text())
    rows = page.tables["Contents that both have"][1:]
    assert len(rows) == min(1000, len(data["pairs"]))
    found = {(pair["a"], pair["b"]): pair for pair in data["pairs"]}
    for row in rows:
        pair = found[row[0], row[1]]
        assert [number(row[place]) for place in (2, 4, 5)] == [pair["contents"], pair["low"], pair["high"]]
    assert len(page.tables["Sources"]) == 1 + len(data["sources"])
    assert "contents that were looked at" in path.read_text()


def test_the_page_of_a_placement(folder, tmp_path):
    pytest.importorskip("highspy")
    path = tmp_path / "place.html"
    out, _ = invoke("fleet", "place", folder, "--capacity", "3M", "--seconds", 1, "--html", path, "--json")
    data, page = json.loads(out), Reader(path.read_text())
    assert json.loads(page.scripts["report"]) == data
    hosts = {host["name"]: host for host in data["hosts"]}
    rows = page.tables["Hosts, in MiB"][1:]
    assert len(rows) == len(hosts)
    for row in rows:
        host = hosts[row[0]]
        assert [number(row[place]) for place in (2, 3)] == [len(host[when]["sources"]) for when in ("before", "after")]
        assert [number(row[place]) for place in (6, 7)] == [
            pytest.approx(host[when]["used"] / 256, abs=0.051) for when in ("before", "after")
        ]
    moves = page.tables["Moves"][1:]
    assert [row[1:4] for row in moves] == [[move["source"], move["from"], move["to"]] for move in data["moves"]]
    assert number(moves[-1][5]) == pytest.approx(data["saving"] / 256, abs=0.051)
    assert {"chart-hosts", "chart-moves"} <= page.scripts.keys()
