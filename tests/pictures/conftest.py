# SPDX-License-Identifier: GPL-2.0-only
"""Images to make pages of, and a page."""

import json
import random

import pytest
from commands import invoke

PAGE = 4096


def page(number):
    """A page of zeros, of one word, of text, or of anything else, by its number."""
    if number < 100:
        return number.to_bytes(8, "little") * (PAGE // 8)
    if number < 1000:
        return (f"line {number} of a text that several have\n" * 200).encode()[:PAGE]
    return random.Random(number).randbytes(PAGE)


NUMBERS = {
    "web": [*[0] * 40, *range(1, 30), *range(100, 160), *range(1000, 1200), 7, 7, 7],
    "db": [*[0] * 10, *range(1, 30), *range(120, 180), *range(1100, 1300)],
    "<img src=x onerror=alert(1)>": [*range(20, 40), *[1100] * 30, *range(5000, 5100)],
}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Files by name: web and db have much in common; the third one has a hostile name."""
    folder = tmp_path_factory.mktemp("images")
    paths = {}
    for name, numbers in NUMBERS.items():
        paths[name] = str(folder / name)
        with open(paths[name], "wb") as file:
            file.write(b"".join(map(page, numbers)))
    return paths


@pytest.fixture(scope="session")
def page_of_images(images, tmp_path_factory):
    """The file of a page with everything in it, and what --json printed beside it."""
    path = tmp_path_factory.mktemp("page") / "scan.html"
    web, db, hostile = images.values()
    out, _ = invoke(
        "scan", web, db, hostile, "--tenant", f"<b>web</b>={web}", "--tenant", f"db={db}", "--zeros", "count", "--html", path, "--contents",
        "--json",
    )  # fmt: skip
    return path, json.loads(out)
