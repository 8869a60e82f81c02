# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/kstrtox.h, lib/kstrtox.c and fs/sysfs/file.c of Linux 6.12.
"""Numbers and words as they are written to sysfs. Numbers are in base 10. One newline at the end is allowed, and nothing else may follow.
"""

from libc.errno cimport EINVAL, ERANGE


cdef extern from "<stdio.h>" nogil:
    # It writes into the page that sysfs hands to a show function.
    int sysfs_emit "sprintf"(char *buf, const char *fmt, ...)


cdef inline int parse_digits(const char *s, bint negative_allowed, bint *negative, unsigned long *value) noexcept nogil:
    cdef unsigned long result = 0
    cdef unsigned int digit
    cdef int digits = 0
    negative[0] = False
    if s[0] == c'-' and negative_allowed:
        negative[0] = True
        s += 1
    elif s[0] == c'+':
        s += 1
    while c'0' <= s[0] <= c'9':
        digit = <unsigned int>(s[0] - c'0')
        if result > (~<unsigned long>0 - digit) // 10:
            return -ERANGE
        result = result * 10 + digit
        digits += 1
        s += 1
    if s[0] == c'\n':
        s += 1
    if digits == 0 or s[0] != 0:
        return -EINVAL
    value[0] = result
    return 0


cdef inline int kstrtoul(const char *s, unsigned long *res) noexcept nogil:
    cdef bint negative
    return parse_digits(s, False, &negative, res)


cdef inline int kstrtouint(const char *s, unsigned int *res) noexcept nogil:
    cdef unsigned long value
    cdef int err = kstrtoul(s, &value)
    if err:
        return err
    if value > 0xffffffffUL:
        return -ERANGE
    res[0] = <unsigned int>value
    return 0


cdef inline int kstrtoint(const char *s, int *res) noexcept nogil:
    cdef unsigned long value
    cdef bint negative
    cdef int err = parse_digits(s, True, &negative, &value)
    if err:
        return err
    if value > 0x7fffffffUL + negative:
        return -ERANGE
    res[0] = <int>(-<long>value if negative else <long>value)
    return 0


cdef inline int kstrtobool(const char *s, bint *res) noexcept nogil:
    """Read a bool by its first letter, or, for on and off, by the second."""
    if s[0] in (c'y', c'Y', c't', c'T', c'1'):
        res[0] = True
        return 0
    if s[0] in (c'n', c'N', c'f', c'F', c'0'):
        res[0] = False
        return 0
    if s[0] in (c'o', c'O'):
        if s[1] in (c'n', c'N'):
            res[0] = True
            return 0
        if s[1] in (c'f', c'F'):
            res[0] = False
            return 0
    return -EINVAL


cdef inline bint sysfs_streq(const char *s1, const char *s2) noexcept nogil:
    while s1[0] and s1[0] == s2[0]:
        s1 += 1
        s2 += 1
    if s1[0] == s2[0]:
        return True
    if s1[0] == 0 and s2[0] == c'\n' and s2[1] == 0:
        return True
    return s2[0] == 0 and s1[0] == c'\n' and s1[1] == 0
