# SPDX-License-Identifier: GPL-2.0-only
"""Contents of pages, and arguments that nobody would expect. All of them are made from data, so that a life can be told again."""

from __future__ import annotations

import array
import random
from collections.abc import Callable
from typing import Any

from fuzz.shadow import PAGE, ZEROS

# Few contents, so that pages meet; among them such that differ in the first or the last byte only.
POOL = [
    ZEROS,
    b"A" * PAGE,
    b"B" + b"A" * (PAGE - 1),
    b"A" * (PAGE - 1) + b"B",
    bytes(PAGE - 1) + b"\1",
    b"\xff" * PAGE,
    b"\x80" + bytes(PAGE - 1),
]


class Content(bytes):
    """The bytes of pages, which print as what made them."""

    text: str

    def __repr__(self) -> str:
        return self.text


def content(number: int, pages: int = 1) -> Content:
    """Pages number, number + 1, ... of those there are: first the pool, then one for each number."""
    made = Content(
        b"".join(POOL[n] if n < len(POOL) else bytes([n & 255, n >> 8 & 255]) * (PAGE // 2) for n in range(number, number + pages))
    )
    made.text = f"content({number})" if pages == 1 else f"content({number}, {pages})"
    return made


def round_robin(kinds: int, pages: int) -> Content:
    """Pages of so many contents, in turn."""
    made = Content(b"".join(content(number) for number in range(kinds)) * (pages // kinds + 1))[: pages * PAGE]
    result = Content(made)
    result.text = f"round_robin({kinds}, {pages})"
    return result


def part(number: int, offset: int, length: int) -> Content:
    made = Content(content(number, (offset + length + PAGE - 1) // PAGE)[offset : offset + length])
    made.text = f"part({number}, {offset}, {length})"
    return made


class OddError(Exception):
    """What an odd argument raises."""


class Index:
    """As good as its number."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Raises:
    def __index__(self) -> int:
        raise OddError

    __str__ = __repr__ = __format__ = __bool__ = __float__ = __len__ = __eq__ = __index__  # type: ignore[assignment]  # none of these has that type
    __hash__ = None  # type: ignore[assignment]  # nor this


class Calls(Index):
    """Does something with the machine before it answers."""

    def __init__(self, value: int, do: Callable[[], object]) -> None:
        super().__init__(value)
        self.do = do

    def __index__(self) -> int:
        self.do()
        return self.value


class TwoFaced(Index):
    """One number by __index__, and another by __int__."""

    def __init__(self, value: int, other: int) -> None:
        super().__init__(value)
        self.other = other

    def __int__(self) -> int:
        return self.other


class Liar:
    """Another number each time it is asked."""

    def __init__(self, values: list[int]) -> None:
        self.values, self.asked = values, 0

    def __index__(self) -> int:
        self.asked += 1
        return self.values[(self.asked - 1) % len(self.values)]


class Unprintable(int):
    def __str__(self) -> str:
        raise OddError

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        raise OddError


class Miscounting(int):
    """Sums and comparisons are wrong."""

    def __add__(self, other: object) -> int:
        return 0

    __radd__ = __sub__ = __rsub__ = __mul__ = __mod__ = __and__ = __add__

    def __lt__(self, other: object) -> bool:
        return False

    __gt__ = __le__ = __ge__ = __eq__ = __ne__ = __lt__
    __hash__ = int.__hash__


NUMBERS = [
    0,
    1,
    -1,
    2,
    511,
    512,
    4095,
    4096,
    4097,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**47 - 4096,
    2**47,
    2**52,
    2**63 - 1,
    2**63,
    2**64 - 4096,
    2**64 - 1,
    2**64,
    2**65,
    -(2**31),
    -(2**63),
    -(2**64),
]
# For sysfs, which takes text
TEXTS = [
    "",
    " ",
    "\n",
    "0",
    "0\n",
    "2",
    "2\n",
    "-1",
    "+0",
    "00",
    "0x0",
    "99999999999999999999",
    "4294967295",
    "4294967296",
    "2147483648",
    "18446744073709551615",
    "18446744073709551616",
    "y",
    "n",
    "on",
    "off",
    "o",
    "none",
    "scan-time",
    "scan-time\n",
    "[none]",
    "\0",
    "0\0",
    "2 ",
    "\N{SUPERSCRIPT TWO}",
    "\ud800",
    "9" * 4095,
    "9" * 4096,
    "0" * 5000,
]
SIZES = [
    "",
    "K",
    "4K",
    "64K",
    "0",
    "-4K",
    "4KB",
    "4KiB",
    "1 M",
    " 1M ",
    "1m",
    "1.5M",
    "4096",
    "4097",
    "16Ti",
    "99999999999999999999T",
    "\N{FULLWIDTH DIGIT FOUR}K",
    "9" * 5000,
]


STRANGERS: list[list[Any]] = [
    ["none"], ["float", 1.0], ["float", 4096.0], ["float", float("inf")], ["float", float("nan")], ["str", "1"], ["str", ""], ["bytes"],
    ["list"], ["object"], ["type"], ["complex"], ["raises"], ["raises"],
]  # fmt: skip


def stranger(rng: random.Random) -> list[Any]:
    """The data of an argument that is no number."""
    return list(rng.choice(STRANGERS))


def make(spec: list[Any], value: int, do: Callable[[Any], object]) -> tuple[Any, int | None]:
    """The argument, and the number that it stands for: None if it has to be refused."""
    kind = spec[0]
    if kind == "value":
        return spec[1], spec[1]
    if kind == "index":
        return Index(value), value
    if kind == "calls":
        return Calls(value, lambda: do(spec[1])), value
    strange: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "float": lambda: spec[1],
        "str": lambda: spec[1],
        "bytes": lambda: b"1",
        "list": list,
        "object": object,
        "type": lambda: int,
        "complex": lambda: 1j,
        "raises": Raises,
    }
    return strange[kind](), None


def wild(spec: list[Any], value: int, do: Callable[[Any], object]) -> Any:
    """An argument of which nobody says what it stands for."""
    if spec[0] == "liar":
        return Liar([value if number is None else number for number in spec[1]])
    if spec[0] == "two-faced":
        return TwoFaced(value, spec[1])
    if spec[0] == "unprintable":
        return Unprintable(value)
    if spec[0] == "miscounting":
        return Miscounting(value)
    return make(spec, value, do)[0]


def wild_spec(rng: random.Random) -> list[Any]:
    number = rng.choice(NUMBERS)
    return rng.choice([["liar", [None, number]], ["liar", [number, None]], ["liar", [1, 2**63 + 1]], ["two-faced", number],
                       ["unprintable"], ["miscounting"], ["value", number], stranger(rng)])  # fmt: skip


def buffer(spec: list[Any], pages: bytes) -> tuple[Any, bytes | None]:
    """Something to write, and the bytes that it has: None if it has to be refused."""
    kind = spec[0]
    good: dict[str, Callable[[], Any]] = {
        "bytearray": lambda: bytearray(pages),
        "memoryview": lambda: memoryview(pages),
        "array": lambda: array.array("B", pages),
        "words": lambda: memoryview(pages).cast("Q") if len(pages) % 8 == 0 else pages,
        "empty": lambda: b"",
        "square": lambda: memoryview(pages).cast("B", (2, len(pages) // 2)) if len(pages) and len(pages) % 2 == 0 else pages,
    }
    if kind in good:
        return good[kind](), b"" if kind == "empty" else pages
    return {
        "none": None,
        "str": "text",
        "int": 4096,
        "list": [1, 2],
        "raises": Raises(),
        "strided": memoryview(pages * 2)[::2],
        "backwards": memoryview(pages)[::-1],
    }[kind], None


BUFFERS = ["bytearray", "memoryview", "array", "words", "empty", "square", "none", "str", "int", "list", "raises", "strided", "backwards"]
