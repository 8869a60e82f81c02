# SPDX-License-Identifier: GPL-2.0-only
"""One field of a machine is overwritten, and put back."""

import ctypes
from collections.abc import Callable

import ksm

Fields = dict[str, tuple[int, int]]  # an address and a size by name
Change = Callable[[int, Fields], int]


def damaged(machine: ksm.Machine, fields: Fields, name: str, value: int | Change) -> list[str]:
    """What check() finds with this field overwritten, by a number or by what value(old, fields) gives. The field is restored, after which
    check() must find nothing."""
    address, size = fields[name]
    old = ctypes.string_at(address, size)
    value = value(int.from_bytes(old, "little"), fields) if callable(value) else value
    ctypes.memmove(address, (value % 2 ** (8 * size)).to_bytes(size, "little"), size)
    try:
        findings = machine.check()
    finally:
        ctypes.memmove(address, old, size)
    assert machine.check() == []
    return findings


def plus(n: int) -> Change:
    return lambda old, fields: old + n


def flip(bits: int) -> Change:
    return lambda old, fields: old ^ bits
