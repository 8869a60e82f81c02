# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of the computer that this runs on.
"""A file to which whole lines are added. Whoever is killed while writing leaves whole lines behind."""

from __future__ import annotations

import errno
import os

from ksm.host.files import FileError, check_kind, why


class Log:
    """A file that is made, or gets further lines. FileError."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            if os.path.lexists(path):
                check_kind(path, os.stat(path).st_mode, False)
            self.fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
        except (OSError, ValueError) as error:
            raise FileError(f"{path}: {why(error)}") from None
        size = os.fstat(self.fd).st_size
        if size and os.pread(self.fd, 1, size - 1) != b"\n":
            os.close(self.fd)
            raise FileError(f"{path}: its last line has no end, so no other line is added to it")

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def add(self, line: str) -> None:
        """Add a line, in one call of the system: it is there as a whole, or not at all. OSError, with the name of the file."""
        data = line.encode() + b"\n"
        size = os.fstat(self.fd).st_size
        try:
            written = os.write(self.fd, data)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), self.path) from None
        if written < len(data):  # there is no room for more of it
            os.ftruncate(self.fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
