# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what kind of contents a page has.
"""The class of a page, by a formula each: docs/fingerprint-files.md has them."""

from linux.mm_types cimport PAGE_SIZE


cdef extern from "page_class.h" nogil:
    int class_forms() noexcept
    int page_class(const char *page, int form) noexcept


# The name of each class; its place is the number that classes_of() gives.
CLASSES = ("zero", "byte", "word", "text", "pointers", "code", "other")

# The forms of the formulas that this processor can run, from 1
FORMS = class_forms()


def classes_of(const unsigned char[::1] data not None, *, int form=0):
    """The classes of these pages as bytes: one for each page, a place in CLASSES. ValueError for a part of a page.

    form is for tests: 1 is plain C, 2 AVX2, and 0 the best that there is.
    """
    cdef Py_ssize_t nr = data.shape[0] // PAGE_SIZE, i
    cdef int chosen = form or class_forms()
    cdef unsigned char[::1] result
    if data.shape[0] % PAGE_SIZE:
        raise ValueError("whole pages have classes")
    if not 0 <= form <= class_forms():
        raise ValueError(f"form must be 0 to {class_forms()}, not {form}")
    made = bytearray(nr)
    if nr == 0:
        return bytes(made)
    result = made
    with nogil:
        for i in range(nr):
            result[i] = <unsigned char>page_class(<const char *>&data[i * PAGE_SIZE], chosen)
    return bytes(made)
