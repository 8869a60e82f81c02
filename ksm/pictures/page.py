# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""A page with pictures: one HTML file, which asks nothing of a network."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import ksm
from ksm.host.files import replacing
from ksm.host.text import printable
from ksm.pictures.sections import Page

HERE = Path(__file__).parent
NEEDED = "a page with pictures needs altair and vl-convert-python: pip install 'ksm[html]'"


class PicturesError(Exception):
    """A page cannot be made. The text is one line."""


def need_altair() -> None:
    """PicturesError where the packages are not there. Called before a scan begins, which may take long."""
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError:
        raise PicturesError(NEEDED) from None


@cache
def vega() -> str:
    """The scripts of Vega, Vega-Lite and Vega-Embed, as vl-convert-python has them."""
    import vl_convert

    bundle: Any = vl_convert.javascript_bundle  # its types ask for an argument
    script: str = bundle()
    return script


def as_script(data: Any) -> Markup:
    """JSON inside <script>: nothing in it can end the element."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def inside(script: str) -> Markup:
    """A script inside <script>. "</script" and "<!--" would end it, or begin a comment."""
    return Markup(script.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def digest(script: str) -> str:
    """What the page's policy says of a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def clean(value: Any) -> Any:
    """The value without halves of characters, which a name from a command line may have, and no file of UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {clean(key): clean(each) for key, each in value.items()}
    if isinstance(value, list):
        return [clean(each) for each in value]
    return value


def render(page: Page, report: dict[str, Any]) -> str:
    """The page; `report` is the JSON that it was made of, and lies in it. PicturesError."""
    need_altair()
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure
    environment.tests["text"] = lambda value: isinstance(value, str)
    scripts = [inside(vega()), inside((HERE / "page.js").read_text())]
    text = environment.get_template("page.html").render(
        version=ksm.__version__, page=page, printable=printable, style=Markup((HERE / "page.css").read_text()), scripts=scripts,
        policy=" ".join(map(digest, scripts)), licence=(HERE / "vega-licence.txt").read_text(), report=as_script(clean(report)),
        charts=[(section.id, as_script(clean(section.chart))) for section in page.sections if section.chart],
        maps=[(section.id, as_script(clean(section.map))) for section in page.sections if section.map],
    )  # fmt: skip
    return text.encode(errors="replace").decode()


def figure(value: str | int | float) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def write(path: str, text: str) -> None:
    """Write the page, or leave what is there as it was. OSError with the file's name."""
    with replacing(path) as file:
        file.write(text.encode())

