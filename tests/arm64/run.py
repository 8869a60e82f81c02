# SPDX-License-Identifier: GPL-2.0-only
"""The fast tests on arm64, under qemu-user: python tests/arm64/run.py [--root DIR] [--mirror URL] [TEST]...

It makes a Debian of arm64 in a folder, builds the wheel for it with a cross-compiler, and runs the tests there in a chroot. README.md
beside it says what that needs, and what is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
PROGRAMS = {"debootstrap": "debootstrap", "qemu-aarch64-static": "qemu-user-static", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu"}
TESTS = ("tests/lib", "tests/mm", "tests/fast")
CHUNK = 40  # tests to a process, because qemu-user keeps a few hundred MiB for each machine that there was
MOST = 6 << 30  # bytes that a process may have
# Tests that cannot pass under qemu-user, and why
MMAP = "qemu-user maps memory by rules of its own, and a process that does as the test says may crash there"
DESCRIPTORS = "qemu-user has some bytes for each page of addresses, which count as the process's memory"
SKIPPED = {
    "tests/mm/test_mmap.py::test_low_addresses_beside_the_kernel": MMAP,
    "tests/mm/test_mmap.py::test_beside_the_kernel": MMAP,
    "tests/mm/test_page_alloc.py::test_an_unused_machine_is_small": DESCRIPTORS,
    "tests/mm/test_page_alloc.py::test_memory_asked_for_ahead_goes_back": DESCRIPTORS,
    "tests/mm/test_page_alloc.py::test_frames_never_get_huge_pages_of_the_system": "qemu-user passes MADV_NOHUGEPAGE over",
}
WHICH = "not slow and not kernel and not browser"

# What is there only in the chroot's own namespace of mounts, and goes with it
ENTER = """
mount --make-rprivate /
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
mount -t sysfs -o ro sysfs "$0/sys"
mount -t tmpfs tmpfs "$0/tmp"
exec chroot "$0" env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1 "$@"
"""


def missing() -> str:
    """What has to be there first; empty if nothing is missing."""
    if os.geteuid():
        return "only root may make a Debian in a folder"
    for program, package in PROGRAMS.items():
        if not shutil.which(program):
            return f"{program} is missing (apt-get install {package})"
    if not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        return "the kernel does not know programs of arm64 (apt-get install binfmt-support, or update-binfmts --enable qemu-aarch64)"
    return ""


def make_root(root: Path, mirror: str | None) -> None:
    """A Debian of arm64 of this machine's release, with Python."""
    if (root / "usr/bin/python3").exists():
        return
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    packages = "python3,python3-dev,gcc,libc6-dev"
    words = ["debootstrap", "--arch=arm64", "--variant=minbase", f"--include={packages}", release, str(root), *([mirror] if mirror else [])]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def version_in(root: Path) -> str:
    """The version of the Python in there, which has to be this one's: Cython and setuptools run here."""
    [version] = [path.name.removeprefix("python") for path in root.glob("usr/include/python3.*")]
    if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
        sys.exit(f"the Python in {root} is {version}: run this with Python {version}")
    return version


def build_wheel(root: Path, version: str, out: Path) -> None:
    """The wheel, by the cross-compiler. Python's own description of its build is that of the Python in there."""
    describes = f"_sysconfigdata__{sysconfig.get_config_var('MULTIARCH')}".replace("x86_64", "aarch64")
    (out / "about").mkdir(parents=True, exist_ok=True)
    shutil.copy(root / f"usr/lib/python{version}" / f"{describes}.py", out / "about")
    compiler = f"aarch64-linux-gnu-gcc --sysroot={root} -I{root}/usr/include/python{version}"
    ccache = "ccache " if shutil.which("ccache") else ""
    environment = {**os.environ, "CC": ccache + compiler, "LDSHARED": f"aarch64-linux-gnu-gcc --sysroot={root} -shared",
                   "PYTHONPATH": str(out / "about"), "_PYTHON_SYSCONFIGDATA_NAME": describes, "_PYTHON_HOST_PLATFORM": "linux-aarch64",
                   "KSM_TESTING": "1"}
    for old in out.glob("*.whl"):
        old.unlink()
    subprocess.run([sys.executable, TREE / "tests/tree.py", "--copy", out / "tree"], check=True)
    subprocess.run([sys.executable, "setup.py", "-q", "bdist_wheel", "-d", out], check=True, cwd=out / "tree", env=environment)


def install(root: Path, version: str, out: Path) -> None:
    """The wheel and what its tests need, for arm64, below /opt of the root; and the tests."""
    [wheel] = out.glob("*.whl")
    site = root / "opt/site"
    shutil.rmtree(site, ignore_errors=True)
    platforms = [f"--platform={name}_aarch64" for name in ("linux", "manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:", f"--python-version={version}", *platforms,
                    "--no-compile", "--target", site, f"{wheel}[test,formats,fleet]"], check=True)
    shutil.rmtree(root / "opt/src", ignore_errors=True)
    shutil.copytree(out / "tree", root / "opt/src", ignore=shutil.ignore_patterns("ksm", "build"))


def run(root: Path, *words: str) -> tuple[int, str]:
    """Run a command in the root: its exit code, and its output. It is ended when it takes too much memory, with the code -9."""
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        words = ("unshare", "-m", "sh", "-c", ENTER, str(root), *words)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            if memory_of(process.pid) > MOST:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.2)
        out.seek(0)
        return process.returncode, out.read()


def memory_of(session: int) -> int:
    """The memory of all processes of a session, in bytes."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == session:
                total += int((path / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            pass  # it has ended
    return total


def chunks(tests: list[str]) -> Iterator[list[str]]:
    """Tests in chunks, each of one file."""
    chunk: list[str] = []
    for test in tests:
        if chunk and (len(chunk) == CHUNK or test.partition("::")[0] != chunk[0].partition("::")[0]):
            yield chunk
            chunk = []
        chunk.append(test)
    if chunk:
        yield chunk


def run_tests(root: Path, asked: list[str]) -> int:
    """Run the tests, and say what has become of them: how many have failed."""
    pytest = ["env", "--chdir=/opt/src", "nice", "-n", "15", "python3", "-m", "pytest", "-p", "no:cacheprovider", "-m", WHICH]
    skipped = [f"--deselect={name}" for name in SKIPPED]
    code, text = run(root, *pytest, "--collect-only", "-q", *skipped, *asked)
    tests = [line for line in text.splitlines() if "::" in line and " " not in line.partition("[")[0]]
    if not tests:
        sys.exit(f"there are no tests: {text[-2000:]}")
    counts: dict[str, int] = {}
    failed: list[str] = []
    waiting = list(chunks(tests))
    while waiting:
        chunk = waiting.pop(0)
        code, text = run(root, *pytest, "-q", "-rfE", *chunk)
        if code == -signal.SIGKILL and len(chunk) > 1:  # too much memory: again, in smaller chunks
            size = max(1, len(chunk) // 8)
            waiting[:0] = [chunk[first:first + size] for first in range(0, len(chunk), size)]
            continue
        print(text, end="", flush=True)
        for number, what in re.findall(r"(\d+) (passed|failed|skipped|errors?|xfailed)\b", (text.splitlines() or [""])[-1]):
            counts[what] = counts.get(what, 0) + int(number)
        failed += re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.M)
        if code not in (0, 1, 5):
            failed.append(f"{chunk[0]} and the {len(chunk) - 1} after it: ended with {code}")
    print(f"arm64, under qemu-user: {', '.join(f'{number:,} {what}' for what, number in counts.items())}; {len(SKIPPED)} left out")
    print("\n".join(failed))
    return len(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description="The fast tests on arm64, under qemu-user.")
    parser.add_argument("--root", type=Path, default=TREE / "build/arm64/root", help="a folder with a Debian of arm64; made if need be")
    parser.add_argument("--mirror", help="where debootstrap gets it; by default where it does by itself")
    parser.add_argument("--as-is", action="store_true", help="run the tests of the last time again: build and install nothing")
    parser.add_argument("tests", nargs="*", default=TESTS, help="files or folders of tests; by default " + ", ".join(TESTS))
    options = parser.parse_args()
    if reason := missing():
        print(reason, file=sys.stderr)
        return 2
    root = options.root.resolve()
    out = root.with_name(root.name + "-wheel")
    if not options.as_is:
        make_root(root, options.mirror)
        version = version_in(root)
        build_wheel(root, version, out)
        install(root, version, out)
    return bool(run_tests(root, list(options.tests)))


if __name__ == "__main__":
    sys.exit(main())
