# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""The kernel's text, from where the reader has it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from ksm.study.functions import Source, c_source

FILE = "mm/ksm.c"
BESIDE = ("Makefile", "lib/rbtree.c", "include/linux/rbtree.h", "include/linux/rbtree_augmented.h")     # read where they are there
MUST_HAVE = ("cmp_and_merge_page", "stable_tree_search", "unstable_tree_search_insert")     # in every version since 2009
LARGEST = 1 << 20


class StudyError(Exception):
    """What cannot be shown, in one line."""


@dataclass
class Kernel:
    """mm/ksm.c of one version. `version` is "6.12.117", or "" where no Makefile says it; `texts` has the files by name."""

    where: str
    version: str
    source: Source
    texts: dict[str, str]

    @property
    def name(self) -> str:
        return f"Linux {self.version}" if self.version else self.where


def read_kernel(where: str) -> Kernel:
    """From a source tree, a file, a tarball, or GIT@REVISION. StudyError."""
    path = Path(where)
    try:
        if path.is_dir():
            texts = _from_tree(path)
        elif path.is_file():
            texts = _from_tarball(path) if tarfile.is_tarfile(path) else _from_file(path)
        elif "@" in where and Path(where.rpartition("@")[0]).is_dir():
            texts = _from_git(*where.rpartition("@")[::2])
        else:
            raise StudyError(f"{where}: no such file, tree or GIT@REVISION")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise StudyError(f"{where}: {getattr(error, 'strerror', None) or error}") from None
    code = texts[FILE]
    # Before it is taken apart: another file may be one that takes long.
    missing = [name for name in MUST_HAVE if not re.search(rf"\b{name}\s*\(", code)]
    source = Source([], {}) if missing else c_source(code)
    missing += [name for name in MUST_HAVE if name not in source.functions]
    if missing:
        raise StudyError(f"{where} is not {FILE}: there is no function {missing[0]}() in it")
    return Kernel(where, version_of(texts.get("Makefile", "")), source, texts)


def version_of(makefile: str) -> str:
    numbers = [re.search(rf"^{key} *= *(\d+)", makefile, re.MULTILINE) for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    extra = re.search(r"^EXTRAVERSION *= *(\S+)", makefile, re.MULTILINE)
    if not numbers[0] or not numbers[1]:
        return ""
    return ".".join(found[1] for found in numbers if found) + (extra[1] if extra else "")


def decoded(data: bytes, where: str) -> str:
    if len(data) > LARGEST:
        raise StudyError(f"{where} is not {FILE}: it is too large")
    if b"\0" in data:
        raise StudyError(f"{where} is not {FILE}: it is not text")
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return decoded(file.read(LARGEST + 1), str(path))


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
    path = path.resolve()
    return {FILE: _read(path), **(_beside(path.parent.parent) if path.parent.name == "mm" else {})}


def _from_tarball(path: Path) -> dict[str, str]:
    """The folder at the top of the archive may have any name. Reading stops when all files were seen."""
    found: dict[str, str] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./").partition("/")[2]
            if name in (FILE, *BESIDE) and member.isfile() and (file := archive.extractfile(member)):
                found[name] = decoded(file.read(LARGEST + 1), f"{path}:{member.name}")
                if len(found) > len(BESIDE):
                    break
    if FILE not in found:
        raise StudyError(f"{path} is not a kernel's source: there is no {FILE} in it")
    return found


def _from_git(path: str, revision: str) -> dict[str, str]:
    def show(name: str) -> bytes:
        # A revision is never taken for an option.
        command = ["git", "-C", path, "show", "--end-of-options", f"{revision}:{name}"]
        return subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout

    try:
        texts = {FILE: decoded(show(FILE), path)}
        for name in BESIDE:
            with contextlib.suppress(subprocess.CalledProcessError):
                texts[name] = decoded(show(name), path)
        return texts
    except FileNotFoundError:
        raise StudyError(f"{path}: git is not installed") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode("utf-8", "replace").strip().splitlines()
        raise StudyError(f"{path}@{revision}: {lines[0] if lines else 'git failed'}") from None
