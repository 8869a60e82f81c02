# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of the computer that this runs on.
"""JSON of unknown origin. Whatever the bytes are, parse_json() gives a value that can be printed and written, or a ValueError of a line."""

from __future__ import annotations

import json
import re
from reprlib import Repr
from typing import Any, NoReturn

from ksm.host.files import read_file
from ksm.host.text import limit_said

LARGEST = 64 << 20  # bytes of a file
# The value takes up to forty times the file's bytes of memory. With these limits it takes 700 MB at most.
MOST_CONTAINERS, MOST_VALUES = 2_000_000, 8_000_000  # lists and objects; values, counted by commas

# An escape that may be half of a surrogate pair: json accepts it, but it cannot be written.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def excess(data: bytes) -> str:
    """Which limit the data exceeds; empty if none."""
    if len(data) > LARGEST:
        return f"more than {limit_said(LARGEST)}"
    if data.count(b"[") + data.count(b"{") > MOST_CONTAINERS:
        return f"more than {MOST_CONTAINERS:,} lists and objects"
    return f"more than {MOST_VALUES:,} values" if data.count(b",") > MOST_VALUES else ""


def parse_json(data: bytes) -> Any:
    """The value of a JSON text. ValueError says in one line what is wrong."""
    if reason := excess(data):
        raise ValueError(f"it has {reason}")
    try:
        text = data.decode()
        value = json.loads(text, parse_constant=no_constant)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start}") from None
    except UnicodeEncodeError:
        raise ValueError("a string has half of a surrogate pair in it") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        # Python's message about digits is advice for programmers.
        raise ValueError("a number has too many digits" if "digits" in str(error) else str(error)) from None
    return value


def read_json(path: str, limit: int = LARGEST) -> Any:
    """The value in a file of at most `limit` bytes. FileError for the file, ValueError for what is in it."""
    return parse_json(read_file(path, limit))


def shown(value: Any) -> str:
    """A value as a message shows it: its repr(), shortened."""
    return _short.repr(value)
