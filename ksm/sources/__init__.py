# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: where memory to be scanned comes from.
"""Sources of memory: running processes, raw images, ELF cores. open_sources() tells them apart."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ksm.host.files import FileError, open_to_read
from ksm.sources.base import Kind, Source, SourceDenied, SourceError, SourceGone
from ksm.sources.formats import reader_of
from ksm.sources.image import open_image
from ksm.sources.input import FileInput, Input
from ksm.sources.live import Host, open_all, open_process

__all__ = ["Host", "Kind", "Source", "SourceDenied", "SourceError", "SourceGone", "open_file", "open_source", "open_sources"]


def open_file(path: str) -> Source:
    """Open a file of memory, by its content: formats.READERS says who reads it. SourceError says in one line why that fails."""
    try:
        fd = open_to_read(path)
    except FileError as error:
        raise SourceError(str(error)) from None
    try:
        input = FileInput(path, fd, os.fstat(fd).st_size)
    except OSError as error:
        os.close(fd)
        raise SourceError(f"{path}: {error.strerror or error}") from None
    try:
        return open_input(input)
    except BaseException:
        input.close()
        raise


def open_input(input: Input) -> Source:
    """The source that an input holds. It takes over the input, unless there is an error."""
    try:
        head = input.peek()
        if not head:
            raise SourceError(f"{input.name}: empty")
        reader = reader_of(head)
        return reader.open(input) if reader else open_image(input)
    except OSError as error:
        raise SourceError(f"{input.name}: {error.strerror or error}") from None


def open_source(text: str, host: Host, *, advised: bool = False) -> Source:
    """A source by what the user wrote: pid:N, or a file's name."""
    if text.startswith("pid:"):
        if not re.fullmatch(r"pid:[0-9]{1,9}", text):
            raise SourceError(f"{text}: a process is written as pid:N; a file of this name as ./{text}")
        return open_process(int(text[4:]), host, advised=advised)
    return open_file(text)


def open_sources(texts: Sequence[str], host: Host, *, advised: bool = False) -> tuple[list[Source], list[str]]:
    """The sources that the user named, or all processes if none is named; and remarks on what is left out."""
    if not texts:
        return open_all(host, advised=advised)
    sources: list[Source] = []
    names: set[str] = set()
    remarks: list[str] = []
    try:
        for text in texts:
            if os.path.isdir(text):
                from ksm.sources.dumps.criu import open_criu  # only a folder needs it

                found, said = open_criu(text)
                sources += found
                remarks += said
                continue
            sources.append(open_source(text, host, advised=advised))
            # The same image twice stands for two equal machines. The same process cannot be there twice.
            if sources[-1].live and sources[-1].name in names:
                raise SourceError(f"{text}: given twice")
            names.add(sources[-1].name)
    except BaseException:
        for source in sources:
            source.close()
        raise
    return sources, remarks
