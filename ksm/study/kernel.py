# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Reading the kernel's text from where the reader has it."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ksm.host.command import CommandError, output_of
from ksm.host.files import FileError, open_to_read, read_file
from ksm.host.text import limit_said, printable
from ksm.sources.formats import what_is
from ksm.study.archive import ArchiveError, files_in, is_archive
from ksm.study.functions import Source, bare, c_source

FILE, MEMORY, RBTREE = "mm/ksm.c", "mm/memory.c", "lib/rbtree.c"
BESIDE = ("Makefile", MEMORY, RBTREE, "include/linux/rbtree.h", "include/linux/rbtree_augmented.h")     # read if they are there
MUST_HAVE = ("cmp_and_merge_page", "stable_tree_search", "unstable_tree_search_insert")     # in every version since 2009
HEAD = 4096  # bytes that tell what a file is

# A larger text is not mm/ksm.c, and reading it could take for ever. mm/ksm.c of 6.12 has 110,000 bytes, 3,954 lines of 100 characters at
# most, 205 lines in the longest function, and 941 characters from one of ; { } to the next.
LARGEST = 512 << 10  # bytes
MOST_LINES, LONGEST_LINE = 10_000, 4096
LONGEST_FUNCTION = 1000  # lines
LONGEST_STATEMENT, LONGEST_GAP = 4096, 256  # characters without one of ; { }, and characters of white space in a row


class StudyError(Exception):
    """Something cannot be shown. The text is one line."""


@dataclass
class Kernel:
    """mm/ksm.c of one version. `version` is "6.12.117", or "" where no Makefile says it; `texts` has the files by name. `refused`: files
    beside it that are no source, and why."""

    where: str
    version: str
    source: Source
    texts: dict[str, str]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"Linux {self.version}" if self.version else self.where


def read_kernel(where: str) -> Kernel:
    """Read the kernel's text from a source tree, a file, a tarball, or GIT@REVISION. StudyError."""
    path = Path(where)
    try:
        if path.is_dir():
            texts = _from_tree(path)
        elif path.exists():
            texts = _from_file(path)
        elif "@" in where and Path(where.rpartition("@")[0]).is_dir():
            texts = _from_git(*where.rpartition("@")[::2])
        else:
            raise StudyError(f"{where}: no such file, tree or GIT@REVISION")
    except (OSError, ValueError) as error:
        raise StudyError(f"{where}: {getattr(error, 'strerror', None) or error}") from None
    except FileError as error:
        raise StudyError(str(error)) from None
    code = texts[FILE]
    # Checked before the text is taken apart: with another file that may take long.
    missing = [f"there is no function {name}() in it" for name in MUST_HAVE if not re.search(rf"\b{name}\s*\(", code)]
    if reason := next(iter(missing), "") or unlike(code):
        raise StudyError(f"{where} is not {FILE}: {reason}")
    source = c_source(code)
    for name in MUST_HAVE:
        if name not in source.functions:
            raise StudyError(f"{where} is not {FILE}: there is no function {name}() in it")
    if reason := too_long(source):
        raise StudyError(f"{where} is not {FILE}: {reason}")
    refused = {name: reason for name in (MEMORY, RBTREE)
               if name in texts and (reason := unlike(texts[name]) or too_long(c_source(texts[name])))}
    texts = {name: text for name, text in texts.items() if name not in refused}
    return Kernel(printable(where), version_of(texts.get("Makefile", "")), source, texts, refused)


def too_long(source: Source) -> str:
    """Why functions cannot be compared line by line; empty if they can."""
    return next((f"{name}() has more than {LONGEST_FUNCTION:,} lines" for name, function in source.functions.items()
                 if function.last - function.first >= LONGEST_FUNCTION), "")


def unlike(code: str) -> str:
    """Why a text cannot be a source that people have written; empty if it may be one."""
    lines = code.expandtabs(8).split("\n")
    if len(lines) > MOST_LINES:
        return f"it has more than {MOST_LINES:,} lines"
    if max(map(len, lines)) > LONGEST_LINE:
        return f"it has a line of more than {LONGEST_LINE:,} characters"
    statements = re.split(r"[;{}]", bare("\n".join(lines)))
    if max(map(len, statements)) > LONGEST_STATEMENT:
        return f"it has more than {LONGEST_STATEMENT:,} characters without one of ; {{ }}"
    if any(re.search(rf"\s{{{LONGEST_GAP}}}", statement) for statement in statements):
        return f"it has more than {LONGEST_GAP} spaces and empty lines in a row"
    return ""


def version_of(makefile: str) -> str:
    numbers = [re.search(rf"^{key} *= *(\d{{1,6}})\b", makefile, re.MULTILINE) for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    extra = re.search(r"^EXTRAVERSION *= *(\S{1,80})", makefile, re.MULTILINE)
    if not numbers[0] or not numbers[1]:
        return ""
    return ".".join(found[1] for found in numbers if found) + (extra[1] if extra else "")


def decoded(data: bytes, where: str) -> str:
    if len(data) > LARGEST:
        raise StudyError(f"{where}: larger than {limit_said(LARGEST)}")
    if b"\0" in data:
        raise StudyError(f"{where} is not text" + (f", but {what}" if (what := what_is(data[:HEAD])) else ""))
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def _read(path: Path) -> str:
    return decoded(read_file(str(path), LARGEST), str(path))


def _beside(path: Path) -> dict[str, str]:
    return {name: _read(path / name) for name in BESIDE if (path / name).is_file()}


def _from_tree(path: Path) -> dict[str, str]:
    if not (path / FILE).is_file():
        bare = path / "HEAD"
        if (path / ".git").exists() or (bare.is_file() and (path / "objects").is_dir()):
            return _from_git(str(path), "HEAD")
        raise StudyError(f"{path} is not a kernel tree: there is no {FILE} in it")
    return {FILE: _read(path / FILE), **_beside(path)}


def _from_file(path: Path) -> dict[str, str]:
    """The file itself, or a tarball that it is in."""
    with open(open_to_read(str(path), pipes=True), "rb") as file:
        if file.seekable() and is_archive(os.pread(file.fileno(), HEAD, 0)):
            try:
                found = files_in(file, {FILE, *BESIDE}, LARGEST)
            except ArchiveError as error:
                raise StudyError(f"{path} is not a kernel's source: {error}") from None
            if FILE not in found:
                raise StudyError(f"{path} is not a kernel's source: there is no {FILE} in it")
            return {name: decoded(data, f"{path}:{name}") for name, data in found.items()}
    path = path.resolve() if path.is_file() else path
    return {FILE: _read(path), **(_beside(path.parent.parent) if path.parent.name == "mm" else {})}


def _from_git(path: str, revision: str) -> dict[str, str]:
    def show(name: str) -> str:
        # A revision is never taken for an option.
        words = ["git", "-C", path, "show", "--end-of-options", f"{revision}:{name}"]
        try:
            return decoded(output_of(words, LARGEST), f"{path}@{revision}:{name}")
        except CommandError as error:
            raise StudyError(f"{path}@{revision}: {error}") from None

    texts = {FILE: show(FILE)}
    for name in BESIDE:
        with contextlib.suppress(StudyError):
            texts[name] = show(name)
    return texts
