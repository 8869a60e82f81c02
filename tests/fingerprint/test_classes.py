# SPDX-License-Identifier: GPL-2.0-only
"""The class of a page is what the formulas of docs/fingerprint-files.md say, and tells real pages apart."""

import glob
import os
import platform
import random
import re
import struct
import sys
from collections import Counter
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from ksm.fingerprint.classes import CLASSES, FORMS, classes_of

PAGE = 4096


def class_of(page):
    """The formulas, as the document has them."""
    words = struct.unpack("<512Q", page)
    if len(set(words)) == 1:
        return "zero" if words[0] == 0 else "byte" if len(set(page)) == 1 else "word"
    sample = b"".join(page[64 * line : 64 * line + 64] for line in (4 * k + k % 4 for k in range(16)))
    if sum(0x20 <= byte <= 0x7F or 9 <= byte <= 13 for byte in sample) >= 768:
        return "text"
    addresses = 0
    for word in struct.unpack("<128Q", sample):
        folded = word ^ (1 << 64) - 1 if word >> 63 else word
        addresses += word % 8 == 0 and 1 << 32 <= folded < 1 << 48
    if addresses >= 32:
        return "pointers"
    if sum(half & 0xF1F8 == 0x8148 for half in struct.unpack("<512H", sample)) >= 8:
        return "code"
    if sum(word >> 24 & 0x97 == 0x91 or word >> 24 == 0xAA for word in struct.unpack("<256I", sample)) >= 32:
        return "code"
    return "other"


def named(data, form=0):
    return [CLASSES[number] for number in classes_of(data, form=form)]


def check(data):
    """Each form gives what the formulas give: the classes."""
    expected = [class_of(data[at : at + PAGE]) for at in range(0, len(data), PAGE)]
    for form in range(FORMS + 1):
        assert named(data, form) == expected
    return Counter(expected)


def whole(data, most=200):
    """Some of the pages of the data."""
    pages = [data[at : at + PAGE] for at in range(0, len(data) - PAGE + 1, PAGE)]
    return b"".join(random.Random(5).sample(pages, min(most, len(pages))))


def sections(paths):
    """The code of programs."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                elf = ELFFile(file)
                section = elf.get_section_by_name(".text")
                if section and elf["e_machine"] in ("EM_X86_64", "EM_AARCH64"):
                    yield section.data()
        except Exception:  # not an ELF file
            continue


def memory_of_this_process():
    """Anonymous memory of this interpreter: objects, and so pointers."""
    parts = []
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as mem:
        for line in maps:
            found = re.match(r"(\w+)-(\w+) rw-p \w+ 00:00 0 *(\[heap\])?$", line)
            if found:
                start, end = int(found[1], 16), int(found[2], 16)
                try:
                    mem.seek(start)
                    parts.append(mem.read(min(end - start, 8 << 20)))
                except (OSError, ValueError, OverflowError):
                    continue
    return b"".join(parts)


def made_of(seed):
    """Pages near the limits of every formula."""
    chance = random.Random(seed)
    pages = []
    for _ in range(60):
        share = chance.random()
        kind = chance.randrange(5)
        if kind == 0:  # text, and bytes that are not
            sets = (b" az~\x7f\t\r\n\x0b", b"\0\x08\x0e\x1f\x80\xff")
            page = bytes(chance.choice(sets[chance.random() >= share]) for _ in range(PAGE))
        elif kind == 1:  # words near the ends of the addresses
            ends = (0, 8, (1 << 32) - 8, 1 << 32, (1 << 32) + 4, (1 << 48) - 8, 1 << 48, (1 << 64) - (1 << 32) - 8, (1 << 64) - (1 << 32),
                    (1 << 64) - (1 << 48), (1 << 64) - (1 << 48) - 8, (1 << 64) - 8)  # fmt: skip
            page = struct.pack("<512Q", *(chance.choice(ends) if chance.random() < share else 0x7F0012345678 for _ in range(512)))
        elif kind == 2:  # REX.W and an opcode, or nearly so
            page = b"".join(
                bytes((chance.randrange(0x46, 0x52), chance.choice((0x7F, 0x81, 0x83, 0x85, 0x89, 0x8B, 0x8D, 0x8F, 0x91, 0x80))))
                if chance.random() < share / 20 else bytes(2) for _ in range(2048)
            )  # fmt: skip
        elif kind == 3:
            page = struct.pack("<1024I", *(chance.choice((0x91, 0xF9, 0xB9, 0xD1, 0xAA, 0xAB, 0x95, 0x2A)) << 24 | chance.randrange(1 << 24)
                                           if chance.random() < share / 3 else 3 for _ in range(1024)))  # fmt: skip
        else:
            page = chance.randbytes(8) * 512
            if chance.random() < 0.5:
                at = chance.randrange(PAGE)
                page = page[:at] + chance.randbytes(1) + page[at + 1 :]
        pages.append(page)
    return b"".join(pages)


@pytest.mark.parametrize("seed", range(5))
def test_formulas_near_their_limits(seed):
    found = check(made_of(seed))
    assert len(found) >= 5


def test_random_bytes_are_of_no_class():
    assert check(random.Random(1).randbytes(400 * PAGE)) == {"other": 400}


def test_pages_of_one_word():
    pages = [bytes(PAGE), b"\1" * PAGE, b"\xff" * PAGE, b"ab" * 2048, struct.pack("<Q", 1 << 40) * 512, b"A" * (PAGE - 1) + b"B"]
    assert named(b"".join(pages)) == ["zero", "byte", "byte", "word", "word", "text"]
    check(b"".join(pages))


@given(st.binary(min_size=64, max_size=64), st.integers(0, PAGE - 1), st.integers(0, 255))
def test_a_repeated_line_with_one_byte_changed(line, place, byte):
    page = bytearray(line * 64)
    page[place] = byte
    check(bytes(page))


def test_text_is_told_apart():
    files = Path(os.__file__).parent.glob("*.py")
    found = check(whole(b"".join(file.read_bytes() for file in sorted(files))))
    assert found["text"] >= 0.97 * sum(found.values())


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="code of other processors is not known")
def test_code_is_told_apart():
    code = b"".join(sections([sys.executable, *random.Random(2).sample(sorted(glob.glob("/usr/bin/*")), 60)]))
    found = check(whole(code, 400))
    assert found["code"] >= 0.85 * sum(found.values())
    assert found["text"] + found["pointers"] <= 0.03 * sum(found.values())


def test_pointers_are_told_apart():
    keep = [[str(number), [object()]] for number in range(100_000)]
    found = check(whole(memory_of_this_process(), 400))
    assert len(keep) == 100_000
    assert found["pointers"] >= 0.3 * (sum(found.values()) - found["zero"] - found["byte"])
    assert found["code"] <= 0.05 * sum(found.values())


def test_parts_of_pages_and_forms_that_are_not_there():
    assert classes_of(b"") == b""
    with pytest.raises(ValueError, match=r"^whole pages have classes$"):
        classes_of(bytes(100))
    for form in (-1, FORMS + 1):
        with pytest.raises(ValueError, match=rf"^form must be 0 to {FORMS}, not {form}$"):
            classes_of(bytes(PAGE), form=form)
