# SPDX-License-Identifier: GPL-2.0-only
"""ksm.scan(): the answers of `ksm scan` as an object."""

import errno
import json

import pytest
from commands import invoke, write_image

import ksm


@pytest.fixture
def images(tmp_path):
    return [write_image(tmp_path / "a", [0, 1, 1, 2, 3]), write_image(tmp_path / "b", [1, 2, 9])]


def test_it_says_what_the_command_says(images):
    report = ksm.scan(images)
    out, _ = invoke("scan", *images, "--json")
    assert report.json() == json.loads(out)
    out, _ = invoke("scan", *images)
    assert out.startswith(report.text())
    assert str(report) == report.text() and report.answer in repr(report)
    assert "\n".join(report.text().splitlines()[:1]) == report.answer
    assert (report.freed, report.settled) == (3 * 4096, True)
    assert report.profit == report.ledger.profit == 3 * 4096 - report.ledger.metadata
    assert report.notes == report.json()["notes"]


def test_options_are_those_of_the_command(images):
    options = {"settings": {"use_zero_pages": 1, "max_page_sharing": "2"}, "passes": 4, "zeros": "count", "exact": True, "threads": 1}
    out, _ = invoke(
        "scan", *images, "--set", "use_zero_pages=1", "--set", "max_page_sharing=2", "--passes", 4, "--zeros", "count", "--exact",
        "--threads", 1, "--era", "6.1", "--json",
    )  # fmt: skip
    assert ksm.scan(images, era="6.1", **options).json() == json.loads(out)


def test_tenants(images):
    out, _ = invoke("scan", "--tenant", f"x={images[0]}", images[1], "--json")
    report = ksm.scan([images[1]], tenants={"x": [images[0]]})
    found = json.loads(out)["tenants"]
    assert report.json()["tenants"] == found and found["merged"] == 5
    assert "no tenant" in report.text()
    with pytest.raises(ValueError, match="is x's, and cannot be y's, too"):
        ksm.scan(tenants={"x": images, "y": images})
    with pytest.raises(ValueError, match="is the name of all other sources"):
        ksm.scan(tenants={"no tenant": images})


def test_the_page(images, tmp_path):
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    report = ksm.scan(images, details=True)
    text = report.html(str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text() == text
    assert 'id="map"' in text and 'id="map"' not in ksm.scan(images).html()


def test_errors(images):
    with pytest.raises(TypeError, match="a sequence of strings"):
        ksm.scan(images[0])
    with pytest.raises(ValueError, match="Invalid argument"):
        ksm.scan(images, settings={"max_page_sharing": 1})
    with pytest.raises(ValueError, match="passes is 1 at least"):
        ksm.scan(images, passes=0)
    with pytest.raises(OSError, match="No such file") as caught:
        ksm.scan([images[0] + "x"])
    assert caught.value.errno == errno.EIO
