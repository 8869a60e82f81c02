# SPDX-License-Identifier: GPL-2.0-only
"""Numbers and words, as files of sysfs take them."""

import errno

import pytest

import ksm


@pytest.fixture
def knobs():
    with ksm.Machine("1M", max_memory="1M") as machine:
        yield machine.ksm


def refused(knobs, name, text):
    with pytest.raises(OSError) as caught:
        knobs.store(name, text)
    return caught.value.errno


@pytest.mark.parametrize("text", ["y", "Y", "yes", "t", "True", "1", "1x", "on", "ON", "oN", "yellow\n"])
def test_texts_that_are_true(knobs, text):
    knobs.use_zero_pages = 0
    knobs.store("use_zero_pages", text)
    assert knobs.use_zero_pages == 1


@pytest.mark.parametrize("text", ["n", "N", "no", "f", "False", "0", "0x1", "off", "OF", "oF", "nothing\n"])
def test_texts_that_are_false(knobs, text):
    knobs.use_zero_pages = 1
    knobs.store("use_zero_pages", text)
    assert knobs.use_zero_pages == 0


@pytest.mark.parametrize("text", ["", "\n", " 1", "2", "-1", "o", "ok", "enable", "disable", "\N{LATIN SMALL LETTER Y WITH ACUTE}"])
def test_texts_that_are_neither_true_nor_false(knobs, text):
    for before in (0, 1):
        knobs.use_zero_pages = before
        assert refused(knobs, "use_zero_pages", text) == errno.EINVAL
        assert knobs.use_zero_pages == before


@pytest.mark.parametrize("text, number", [("0", 0), ("7", 7), ("+9", 9), ("1234567890", 1234567890), ("0099\n", 99),
                                          ("4294967295", 0xFFFFFFFF)])
def test_numbers(knobs, text, number):
    """Numbers are decimal, also with a leading zero."""
    knobs.store("sleep_millisecs", text)
    assert knobs.sleep_millisecs == number


@pytest.mark.parametrize("text", ["", "\n", "-", "+", "-1", "++1", " 1", "1 ", "1\n\n", "0x10", "1.5", "4294967296", "1a", ":", "/"])
def test_texts_that_are_not_numbers(knobs, text):
    assert refused(knobs, "sleep_millisecs", text) == errno.EINVAL      # the file answers EINVAL whatever is wrong
    assert knobs.sleep_millisecs == 20


@pytest.mark.parametrize("text, error", [
    ("2147483648", errno.ERANGE), ("-2147483649", errno.ERANGE), ("18446744073709551616", errno.ERANGE),
    ("99999999999999999999", errno.ERANGE), ("-2147483648", errno.EINVAL), ("-5", errno.EINVAL), ("--5", errno.EINVAL),
    ("+-5", errno.EINVAL),
])  # fmt: skip
def test_numbers_with_a_sign(knobs, text, error):
    """EINVAL for text that is not a number, and for numbers below 2; ERANGE for numbers that do not fit into an int."""
    assert refused(knobs, "max_page_sharing", text) == error
    knobs.store("max_page_sharing", "2147483647")
    assert knobs.max_page_sharing == 2147483647


@pytest.mark.parametrize("text, there", [("scan-time", True), ("scan-time\n", True), ("scan-time\n\n", False), ("scan-tim", False),
                                         ("scan-times", False)])
def test_words(knobs, text, there):
    if there:
        knobs.store("advisor_mode", text)
    else:
        assert refused(knobs, "advisor_mode", text) == errno.EINVAL
    assert knobs.advisor_mode == ("scan-time" if there else "none")
