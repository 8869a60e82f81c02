# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""An image that shrinks while it is mapped, or lies on a failing disk, kills whoever looks at it. Say at least why."""

cdef extern from "<signal.h>" nogil:
    enum:
        SIGBUS
    ctypedef void (*sighandler_t)(int) noexcept nogil
    sighandler_t signal(int signum, sighandler_t handler)

cdef extern from "<unistd.h>" nogil:
    long write(int fd, const void *buf, size_t count)
    int isatty(int fd)
    void _exit(int status)

cdef extern from *:
    """
    static const char show_cursor[] = "\\r\\033[K\\033[?25h";
    static const char why[] = "ksm: a memory image cannot be read any more: it has been truncated, or its disk has failed\\n";
    """
    const char show_cursor[]
    const char why[]
    size_t SHOW_CURSOR "sizeof(show_cursor) - 1"
    size_t WHY "sizeof(why) - 1"


cdef void on_bus_error(int signum) noexcept nogil:
    # The faulting instruction would only be repeated: there is nothing to return to.
    if isatty(2):
        write(2, show_cursor, SHOW_CURSOR)      # a progress bar has hidden it
    write(2, why, WHY)
    _exit(1)


def exit_on_bus_error():
    """From now on, SIGBUS ends the process with one line on stderr and exit code 1."""
    signal(SIGBUS, &on_bus_error)
