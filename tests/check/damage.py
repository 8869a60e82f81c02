# SPDX-License-Identifier: GPL-2.0-only
"""One field of a machine is overwritten, and put back."""

import ctypes


def damaged(machine, fields, name, value):
    """What check() says with this field overwritten, by a number or by what value(old, fields) gives; afterwards all is as before, and
    check() says so."""
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


def plus(n):
    return lambda old, fields: old + n


def flip(bits):
    return lambda old, fields: old ^ bits
