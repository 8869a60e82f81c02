# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of the computer that this runs on.
"""JSON from somewhere else. Whatever it is, there is a value of Python's that can be printed and written, or a ValueError of one line."""

from __future__ import annotations

import json
import re
from reprlib import Repr
from typing import Any, NoReturn

from ksm.host.files import read_file
from ksm.host.text import limit_said

LARGEST = 64 << 20  # bytes of a file
# What is in it takes up to forty times its bytes of memory: with these, 700 MB at most.
MOST_CONTAINERS, MOST_VALUES = 2_000_000, 8_000_000  # lists and objects; what stands between commas

# What could be half of a character: json takes it, and nothing can be written that has it.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def excess(data: bytes) -> str:
    """What it has too much of to be read; empty if it has not."""
    if len(data) > LARGEST:
        return f"more than {limit_said(LARGEST)}"
    if data.count(b"[") + data.count(b"{") > MOST_CONTAINERS:
        return f"more than {MOST_CONTAINERS:,} lists and objects"
    return f"more than {MOST_VALUES:,} values" if data.count(b",") > MOST_VALUES else ""


def parse_json(data: bytes) -> Any:
    """The value. ValueError says what is wrong, in one line."""
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
        # Python's own words are advice for programmers.
        raise ValueError("a number has too many digits" if "digits" in str(error) else str(error)) from None
    return value


def read_json(path: str, limit: int = LARGEST) -> Any:
    """The value in a file of at most so many bytes. FileError for the file, ValueError for what is in it."""
    return parse_json(read_file(path, limit))


def shown(value: Any) -> str:
    """A value in a message: as Python writes it, and short."""
    return _short.repr(value)
