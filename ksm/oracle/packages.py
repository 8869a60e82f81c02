# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: where kernels come from.
"""Packages of Debian's kernels, downloaded by apt.

A version that this machine's lists of packages do not have is looked for in a newer suite of the mirror that apt uses. The suite's list
goes into a folder of its own, so that the machine's lists stay as they are. Debian signs it, and apt checks that with the keys of this
machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ksm.host.command import CommandError, output_of
from ksm.oracle.workload import OracleError

LARGEST = 1 << 24  # bytes of what a command prints
SUITES = ("trixie-backports",)  # where kernels newer than those of a stable Debian are
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEBIAN = ("Created-By: Packages", "Origin: Debian", "Label: Debian")

Options = tuple[str, ...]  # of apt: whose lists it takes


def command(*words: str, folder: Path | None = None) -> str:
    """What a command prints. OracleError."""
    try:
        return output_of([*(["env", f"--chdir={folder}"] if folder else []), *words], LARGEST).decode()
    except CommandError as error:
        raise OracleError(str(error)) from None


def unpack(package: Path, folder: Path, downloads: Path) -> None:
    """Unpack a package of a kernel into a folder. OracleError.

    Since 6.19, Debian's linux-image-* is empty, and depends on packages with the kernel and with its modules. Those that do not lie beside
    it are downloaded into another folder.
    """
    command("dpkg-deb", "-x", str(package), str(folder))
    depends = command("dpkg-deb", "-f", str(package), "Depends")
    for name in dict.fromkeys(re.findall(r"\blinux-(?:binary|modules)-[0-9][^ ,]*", depends)):
        beside = sorted(package.parent.glob(f"{name}_*.deb"))
        command("dpkg-deb", "-x", str(beside[0] if beside else download(name, downloads)), str(folder))


def download(what: str, folder: Path) -> Path:
    """The package of this name, or the newest one for clouds that begins so, in the folder. OracleError."""
    if not re.fullmatch(r"[0-9a-z][0-9A-Za-z.+~-]*", what):
        raise OracleError(f"{what or 'a kernel without a name'}: there is no such file, and no package can be called so")
    folder.mkdir(parents=True, exist_ok=True)
    name, options = find(what, folder)
    command("apt-get", *options, "download", "-qq", name, folder=folder)
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        raise OracleError(f"{name}: apt has not downloaded it")
    return found[0]


def find(what: str, folder: Path) -> tuple[str, Options]:
    """The name of the package that is meant, and with which options apt knows it. OracleError."""
    tried: list[str] = []
    for options in lists(folder, tried):
        names = candidates(what, options)
        if names:
            return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]), options
    called = what if what.startswith("linux-") else f"linux-image-{what}*-cloud-amd64"
    raise OracleError(f"{what}: apt knows no {called}; is its list of packages there (apt-get update)? And beyond it: {'; '.join(tried)}")


def candidates(what: str, options: Options) -> list[str]:
    """The packages that can be meant. Those for clouds have small kernels, which boot quickly. OracleError."""
    pattern = rf"^linux-image-{re.escape(what)}([.+-][0-9a-z.+-]*)?-?cloud-amd64$"
    if what.startswith("linux-"):
        pattern = rf"^{re.escape(what)}$"
    names = [line.split()[0] for line in command("apt-cache", *options, "search", "--names-only", pattern).splitlines()]
    return [name for name in names if re.search(r"^  Candidate: [^(]", command("apt-cache", *options, "policy", name), re.M)]


def lists(folder: Path, tried: list[str]) -> Iterator[Options]:
    """Apt's options for the machine's own lists of packages, then for each newer suite. Why a suite was of no use is added to `tried`."""
    yield ()
    for suite in SUITES:
        try:
            yield of_suite(suite, folder / suite)
            tried.append(f"{suite} has no such package")
        except OracleError as error:
            tried.append(str(error))


def of_suite(suite: str, folder: Path) -> Options:
    """Apt's options for a suite of Debian's mirror, whose list is read into the folder. OracleError."""
    sites = command("apt-get", "indextargets", "--format", "$(SITE)", *DEBIAN).split()
    if not sites:
        raise OracleError(f"{suite}: apt has no mirror of Debian")
    known = folder.exists()
    (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    (folder / "sources.list").write_text(f"deb {signed}{sites[0]} {suite} main\n")
    places = {"Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": "-", "Dir::State::lists": folder / "lists",
              "Dir::Cache": folder}
    options = tuple(word for place, value in places.items() for word in ("-o", f"{place}={value}"))
    if not known:
        command("apt-get", *options, "-o", "APT::Update::Error-Mode=any", "-qq", "update")
    return options
