# SPDX-License-Identifier: GPL-2.0-only
"""Cores that others made: those that pyelftools and drgn test themselves with, from their sdists. Their pages are counted without a reader.

The sdists are taken from the folder that KSM_SDISTS names, or downloaded.
"""

import io
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile
from outcomes import counts

from ksm.sources.unpack import first_module

PAGE = 4096
SDISTS = {"pyelftools": "0.33", "drgn": "0.3.0"}
CORES = {
    "pyelftools": [
        "test/testfiles_for_readelf/core_simple64.elf", "test/testfiles_for_unittests/core_linux32.elf",
        "test/testfiles_for_unittests/core_linux32_qemu_mips.elf", "test/testfiles_for_unittests/core_linux64.elf",
    ],
    "drgn": [
        f"tests/resources/{name}.core.zst"
        for name in ("crashme", "crashme_pie", "crashme_pie_no_headers", "crashme_static", "crashme_static_pie", "multithreaded")
    ],
}  # fmt: skip
SHARED = ("/dev/zero (deleted)", "/SYSV", "/dev/shm/", "/memfd:", "/[aio]")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sdists(tmp_path_factory):
    """A function that gives the sdist of a package."""
    folder = Path(os.environ["KSM_SDISTS"]) if "KSM_SDISTS" in os.environ else tmp_path_factory.mktemp("sdists")

    def sdist(name):
        path = folder / f"{name}-{SDISTS[name]}.tar.gz"
        if not path.exists():
            # Its metadata are made with setuptools, which the tests need anyway.
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
            run = subprocess.run([*command, "-d", folder, f"{name}=={SDISTS[name]}"], capture_output=True, text=True, timeout=300)
            if not path.exists():
                pytest.skip(f"the sdist of {name} cannot be had: {run.stderr.strip().splitlines()[-1:]}")
        return path

    return sdist


def unpacked(data):
    if not data.startswith(b"\x28\xb5\x2f\xfd"):
        return data
    zstd = first_module("compression.zstd", "backports.zstd")
    if zstd is None:
        pytest.skip("neither Python's zstd nor backports.zstd")
    return zstd.decompress(data)


def count(data):
    """How often each page's content is there among the private anonymous pages, page for page."""
    elf = ELFFile(io.BytesIO(data))
    files, vdso = [], None
    for segment in elf.iter_segments("PT_NOTE"):
        for note in segment.iter_notes():
            if note["n_type"] == "NT_FILE":
                names = note["n_desc"]["filename"]
                entries = note["n_desc"]["Elf_Nt_File_Entry"]
                files += [(one["vm_start"], one["vm_end"], name.decode()) for one, name in zip(entries, names, strict=True)]
            elif note["n_type"] in ("NT_AUXV", 6):
                word, order = elf.elfclass // 8, "little" if elf.little_endian else "big"
                raw = note["n_descdata"]
                words = [int.from_bytes(raw[at : at + word], order) for at in range(0, len(raw) - word + 1, word)]
                vdso = dict(zip(words[::2], words[1::2], strict=False)).get(33, 0)
    found = Counter()
    for segment in elf.iter_segments("PT_LOAD"):
        start, writable = segment["p_vaddr"], segment["p_flags"] & P_FLAGS.PF_W
        if start >= 1 << 63 or (vdso and start <= vdso < start + segment["p_filesz"]):
            continue
        for at in range(0, segment["p_filesz"] // PAGE * PAGE, PAGE):
            names = [name for first, last, name in files if first <= start + at < last]
            if not names or (writable and not names[0].startswith(SHARED)):
                place = segment["p_offset"] + at
                found[data[place : place + PAGE]] += 1
    return found


def saved(number):
    return number - -(-number // 256)


@pytest.mark.parametrize(("package", "member"), [(package, member) for package, members in CORES.items() for member in members])
@pytest.mark.parametrize("exact", [False, True], ids=["fingerprints", "bytes"])
def test_the_pages_of_a_real_core(tmp_path, sdists, package, member, exact):
    with tarfile.open(sdists(package)) as archive:
        packed = archive.extractfile(f"{package}-{SDISTS[package]}/{member}").read()
    path = tmp_path / "core"
    path.write_bytes(packed)
    found = count(unpacked(packed))
    zeros = found.pop(bytes(PAGE), 0)
    result = counts(path, exact=exact)
    assert result["pages"] == sum(found.values()) + zeros > 0
    assert result["zero"] == saved(zeros)
    assert result["within"] == sum(saved(number) for number in found.values())
    assert result["pages_unshared"] == sum(number == 1 for number in found.values()) + (zeros == 1)
