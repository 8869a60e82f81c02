# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/freezer.h of Linux 6.12.
"""Who scans stops between two pages when the machine is about to go, as in the kernel when the system is about to sleep."""

from linux.atomic cimport READ_ONCE_int
from linux.mm_types cimport machine


cdef inline bint freezing(machine *m) noexcept nogil:
    return READ_ONCE_int(m.freezing) != 0
