# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: where memory to be scanned comes from.
"""Sources of memory: running processes, and files in many forms. open_sources() tells them apart."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ksm.host.files import allow_files
from ksm.sources.advice import of_advice
from ksm.sources.base import Kind, Source, SourceDenied, SourceError, SourceGone
from ksm.sources.formats import packing_of, reader_of
from ksm.sources.image import open_image
from ksm.sources.input import Holes, Input, open_path
from ksm.sources.live import Host
from ksm.sources.mappings import Which
from ksm.sources.processes import open_all, open_process

LAYERS = 2  # of what is packed: a compressed file that somebody has compressed again

__all__ = ["Host", "Kind", "Source", "SourceDenied", "SourceError", "SourceGone", "Which", "open_file", "open_source", "open_sources"]


def open_file(path: str, holes: Holes | None = None) -> Source:
    """Open a file of memory, <(command), or "-" for standard input. Its content says what it is: see formats.py.

    `holes` says what the holes of files are; by default the format says so. SourceError says in one line why that fails.
    """
    return open_input(open_path(path, holes))


def open_input(input: Input) -> Source:
    """The source that an input holds. It takes over the input."""
    try:
        for layer in range(LAYERS + 1):
            if input.size == 0 or not input.peek():  # a file of /proc has no size, and bytes that are no memory
                raise SourceError(f"{input.name}: empty")
            packing = packing_of(input.peek())
            if packing is None:
                break
            if layer == LAYERS:
                raise SourceError(f"{input.name}: packed more than {LAYERS} times")
            input = packing.open(input)
        reader = reader_of(input.peek())
        return reader.open(input) if reader else open_image(input)
    except OSError as error:
        input.close()
        raise SourceError(f"{input.name}: {error.strerror or error}") from None
    except BaseException:
        input.close()
        raise


def open_source(text: str, host: Host, *, which: Which = "prctl", holes: Holes | None = None) -> Source:
    """A source by what the user wrote: pid:N, a file's name, or "-"."""
    if text.startswith("pid:"):
        if not re.fullmatch(r"pid:[0-9]{1,9}", text):
            raise SourceError(f"{text}: a process is written as pid:N; a file of this name as ./{text}")
        return open_process(int(text[4:]), host, which=which)
    try:
        return open_file(text, holes)
    except SourceError as error:
        if meant := process_meant(text):
            number = "N" if meant == os.getpid() else str(meant)
            raise SourceError(f"{error}; the memory of a process is written as pid:{number}") from None
        raise


def process_meant(text: str) -> int:
    """The process whose memory the user may have meant by a file's name that is none, or that is its /proc/PID/mem; 0 for none."""
    number = re.fullmatch(r"[1-9][0-9]{0,8}", text)
    if number and not os.path.lexists(text):
        return int(text) if os.path.isdir(f"/proc/{text}") else 0
    inside = re.fullmatch(r"/proc/([0-9]{1,9})(?:/task/[0-9]{1,9})?/mem", os.path.realpath(text))
    return int(inside[1]) if inside else 0


def open_sources(
    texts: Sequence[str], host: Host, *, which: Which = "prctl", holes: Holes | None = None
) -> tuple[list[Source], list[str]]:
    """The sources that the user named, or all processes if none is named; and remarks on what is left out."""
    if not all(texts):
        raise SourceError("'': a source is pid:N, a file, or -")
    if not texts:
        sources, remarks = open_all(host, which=which)
        return sources, [*remarks, *of_advice(sources, which)]
    sources, remarks = [], []
    names: set[str] = set()
    if list(texts).count("-") > 1:
        raise SourceError("-: standard input is given twice")
    allow_files(len(texts))
    try:
        for text in texts:
            if os.path.isdir(text):
                from ksm.sources.dumps.criu import open_criu  # only a folder needs it

                opened: list[Source] = [*open_criu(text)]
            else:
                opened = open_source(text, host, which=which, holes=holes).parts()
            for source in opened:
                source.text = text
            sources += opened
            # The same image twice stands for two equal machines. The same process cannot be there twice.
            if sources[-1].live and sources[-1].name in names:
                raise SourceError(f"{text}: given twice")
            names.add(sources[-1].name)
    except BaseException:
        for source in sources:
            source.close()
        raise
    return sources, of_advice(sources, which)
