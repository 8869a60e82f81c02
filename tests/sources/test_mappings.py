# SPDX-License-Identifier: GPL-2.0-only
"""Which mappings KSM may look at, by what /proc says of them."""

from collections import Counter

import pytest

from ksm.sources.mappings import Mapping, by_kind, ksm_stat_of, mappings_of, parted

MIB = 1 << 20


def smaps(*mappings):
    """Text as the kernel writes it: (header, flags, {line: kB})."""
    text = ""
    for header, flags, figures in mappings:
        lines = {"Size": 1024, "Rss": 0, "Pss": 0, "Referenced": 0, "Anonymous": 0, "KSM": 0, **figures}
        text += f"{header}\n" + "".join(f"{name}:{count:>16} kB\n" for name, count in lines.items() if count is not None)
        text += f"THPeligible:           0\nVmFlags: {flags} \n"
    return text


HEAP = "01000000-01100000 rw-p 00000000 00:00 0                                  [heap]"
PLAIN = "7f0000000000-7f0000100000 rw-p 00000000 00:00 0 "
FILE = "7f0000200000-7f0000300000 rw-p 00001000 fe:00 1234                       /usr/lib/a name (with) spaces.so"
STACK = "7ffc00000000-7ffc00100000 rw-p 00000000 00:00 0                          [stack]"
SHARED = "7f0000400000-7f0000500000 rw-s 00000000 00:01 1                           /dev/zero (deleted)"


def test_what_a_mapping_is():
    heap, plain, file = mappings_of(
        smaps(
            (HEAP, "rd wr mr mw me ac mg", {"Rss": 100, "Pss": 100, "Anonymous": 100}),
            (PLAIN, "rd wr mr mw me ac mg", {"Rss": 100, "Pss": 40, "Anonymous": 100, "KSM": 12}),
            (FILE, "rd wr mr mw me ac", {"Rss": 100, "Pss": 70, "Anonymous": 60, "KSM": None}),
            (SHARED, "rd wr sh mr mw me ms", {"Rss": 100, "Anonymous": 0}),
        )
    )
    assert heap == Mapping(0x1000000, 0x1100000, 100 << 10, True, "[heap]", 0, 0)
    assert plain == Mapping(0x7F0000000000, 0x7F0000100000, 100 << 10, True, "", 60 << 10, 12 << 10)
    # 40 kB are the file's, and have a Pss of 40 kB at most. So 30 kB at least are that of the copies, of 60 kB.
    assert file == Mapping(0x7F0000200000, 0x7F0000300000, 60 << 10, False, "/usr/lib/a name (with) spaces.so", 30 << 10, 0)
    assert [mapping.kind for mapping in (heap, plain, file)] == ["[heap]", "anonymous mappings", "copies of files"]


@pytest.mark.parametrize("flags, looked_at", [("rd wr de", False), ("rd wr mm", False), ("rd wr mm mg", True), ("rd wr lo", True)])
def test_who_is_mergeable_is_asked_nothing_else(flags, looked_at):
    """__ksm_add_vma() returns early for a mapping with VM_MERGEABLE, and ksmd asks for this flag only."""
    assert len(list(mappings_of(smaps((PLAIN, flags, {}))))) == looked_at


@pytest.mark.parametrize(
    "which, merge_any, taken",
    [("prctl", False, [0, 1, 2]), ("prctl", True, [1]), ("advised", False, [1]), ("is", False, [1]), ("is", True, [1])],
)
def test_which_count(which, merge_any, taken):
    """ksm_enable_merge_any() does nothing for a process that has called prctl() before. For others, it flags what is compatible."""
    every = list(
        mappings_of(
            smaps(
                (HEAP, "rd wr", {"Rss": 8, "Pss": 8, "Anonymous": 8}),
                (PLAIN, "rd wr mg", {"Rss": 4, "Pss": 4, "Anonymous": 4}),
                (STACK, "rd wr gd", {"Rss": 16, "Pss": 16, "Anonymous": 16}),
            )
        )
    )
    mappings, left = parted(every, which, merge_any)
    assert mappings == [every[place] for place in taken]
    assert by_kind(left) == (Counter({"[heap]": 8192, "[stack]": 16384}) if len(taken) == 1 else Counter())


def test_ksm_stat():
    old = "ksm_rmap_items 7\nksm_zero_pages -1\nksm_merging_pages 5\nksm_process_profit -448\n"
    assert ksm_stat_of(old) == {"ksm_rmap_items": 7, "ksm_zero_pages": -1, "ksm_merging_pages": 5, "ksm_process_profit": -448}
    assert ksm_stat_of(f"{old}ksm_merge_any: yes\nksm_mergeable: no\n")["ksm_merge_any"] == 1
    assert ksm_stat_of(f"{old}ksm_merge_any: yes\nksm_mergeable: no\n")["ksm_mergeable"] == 0
    assert ksm_stat_of("") == {}
