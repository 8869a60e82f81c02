# SPDX-License-Identifier: GPL-2.0-only
"""The compiled part of the build; pyproject.toml has everything else.

Every .pyx below ksm/ is a module and every folder below include/ a package of headers: a new one needs no line here.

    KSM_DEBUG=1   bounds checks, asserts, BUG_ON() in headers, -O1 -g
    KSM_TSAN=1    for ThreadSanitizer (tox -e tsan)
    KSM_STUB=1    ksmd remembers nothing: tests/fast/seams_stub.pyx in place of ksm/fast/seams.pyx (tox -e stub)
    KSM_SANITIZE=1  a debug build with AddressSanitizer and UndefinedBehaviorSanitizer where the compiler has them (tox -e fuzz)
    KSM_TRACE=1   line tracing for Cython.Coverage; the .c files lie beside the .pyx, so build a copy of the tree (tox -e coverage)
    KSM_TESTING=1 with ksm/testing/, which tests need and users do not. A build in place (build_ext --inplace, pip install -e) has it
                  unless this is 0; a wheel has it only when this is 1
    KSM_CFLAGS    more flags for the C compiler, behind these
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SANITIZE = os.environ.get("KSM_SANITIZE", "0") not in ("", "0")
DEBUG = SANITIZE or os.environ.get("KSM_DEBUG", "0") not in ("", "0")
TRACE = os.environ.get("KSM_TRACE", "0") not in ("", "0")
TSAN = os.environ.get("KSM_TSAN", "0") not in ("", "0")
STUB = os.environ.get("KSM_STUB", "0") not in ("", "0")
MODE = ("trace" if TRACE else "sanitize" if SANITIZE else "debug" if DEBUG else "tsan" if TSAN else "release") + ("-stub" if STUB else "")
JOBS = min(2, os.cpu_count() or 1)

# cdivision stays on in every mode: it decides what / and % mean.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": False,  # cannot be had without the GIL
    "wraparound": False,
    "cdivision": True,
    "freethreading_compatible": True,
    "linetrace": TRACE,
}

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def sanitizers() -> list[str]:
    """The flags of the sanitizers, if a program can be linked with them."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        command = [*compiler, *SANITIZERS, "-x", "c", "-", "-o", os.path.join(folder, "a.out")]
        if subprocess.run(command, input=b"int main(void) { return 0; }", capture_output=True, check=False).returncode == 0:
            return SANITIZERS
    print("the compiler has no sanitizers: a debug build", file=sys.stderr)
    return []


# Code in the kernel's manner casts between structures and lets integers wrap.
FLAGS = ["-fno-strict-aliasing", "-fwrapv"]
MACROS: list[tuple[str, str | None]] = []
if TRACE:
    FLAGS += ["-O1", "-g0"]
    MACROS += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
elif DEBUG:
    FLAGS += ["-O1", "-g", "-UNDEBUG"]
    MACROS += [("KSM_DEBUG", "1")]
    if SANITIZE:
        FLAGS += sanitizers()
elif TSAN:
    FLAGS += ["-O1", "-g", "-fsanitize=thread"]
else:
    FLAGS += ["-O3", "-g0"]
    MACROS += [("CYTHON_WITHOUT_ASSERTIONS", None)]
FLAGS += os.environ.get("KSM_CFLAGS", "").split()


HEADERS = ["include", "ksm/fast", "ksm/fingerprint", "third_party/xxhash", "third_party/blake3"]
# Sources that others wrote, with the flags that some of them need. Which of them runs is decided when it runs.
Flags = dict[str, list[str]]
X86: Flags = {
    "xxhash/xxh_x86dispatch.c": [],
    "blake3/blake3_sse2.c": ["-msse2"],
    "blake3/blake3_sse41.c": ["-msse4.1"],
    "blake3/blake3_avx2.c": ["-mavx2"],
    "blake3/blake3_avx512.c": ["-mavx512f", "-mavx512vl"],
}
ARM: Flags = {"blake3/blake3_neon.c": []}
# The machine that is built for, which _PYTHON_HOST_PLATFORM may say.
WIDE = {"linux-x86_64": X86, "linux-aarch64": ARM}.get(sysconfig.get_platform(), Flags())
PLAIN = ["blake3/blake3.c", "blake3/blake3_dispatch.c", "blake3/blake3_portable.c"]
LIBRARIES = {"ksm.fingerprint.frames": [f"third_party/{file}" for file in (*PLAIN, *WIDE)]}


def extension(name: str, source: str) -> Extension:
    return Extension(name, [source, *LIBRARIES.get(name, [])], include_dirs=HEADERS, extra_compile_args=FLAGS, define_macros=MACROS,
                     extra_link_args=[flag for flag in FLAGS if flag.startswith("-fsanitize=")])


FOR_TESTS = Path("ksm/testing")


def testing(in_place: bool = False) -> bool:
    """Whether modules that only tests need are built."""
    return os.environ.get("KSM_TESTING", "1" if in_place else "0") not in ("", "0")


def modules(with_testing: bool) -> list[Extension]:
    paths = [path for path in sorted(Path("ksm").rglob("*.pyx")) if with_testing or FOR_TESTS not in path.parents]
    sources = {".".join(path.with_suffix("").parts): str(path) for path in paths}
    if STUB:
        sources["ksm.fast.seams"] = "tests/fast/seams_stub.pyx"
    found = [extension(name, source) for name, source in sources.items()]
    # The code that Cython's memoryviews need, once for all modules.
    return [*found, extension("ksm._cyutility", "ksm/_cyutility.c")]


def packages() -> dict[str, str]:
    """Every package and its folder. The headers become ksm/include in a wheel, where ksm.get_include() looks."""
    code = {path.parent for suffix in ("py", "pyx", "pxd") for path in Path("ksm").rglob(f"*.{suffix}")}
    if not testing():
        code.discard(FOR_TESTS)
    headers = {path.parent for suffix in ("pxd", "h") for path in Path("include").rglob(f"*.{suffix}")}
    return {
        **{".".join(folder.parts): str(folder) for folder in sorted(code)},
        **{".".join(("ksm", *folder.parts)): str(folder) for folder in sorted(headers)},
    }


class BuildExt(build_ext):
    def finalize_options(self) -> None:
        # Not before: only here it is known whether the build is one in place.
        self.distribution.ext_modules = cythonize(  # type: ignore[no-untyped-call]  # Cython's own has no types
            modules(testing(bool(self.inplace or self.editable_mode))),
            include_path=["include", *(["."] if STUB else [])],
            compiler_directives=DIRECTIVES,
            shared_utility_qualified_name="ksm._cyutility",
            build_dir=None if TRACE else f"build/{MODE}/cython",
            nthreads=JOBS,
        )
        super().finalize_options()

    def build_extensions(self) -> None:
        # setuptools has flags for a module, and these are for one file.
        plain = self.compiler._compile

        def compile_one(obj: str, src: str, ext: str, cc_args: list[str], extra_postargs: list[str], pp_opts: list[str]) -> None:
            flags = WIDE.get(src.removeprefix("third_party/"), [])
            plain(obj, src, ext, cc_args, [*extra_postargs, *flags], pp_opts)

        self.compiler._compile = compile_one
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        # A module in the source tree may be newer, and yet of another mode.
        self.force = True
        super().copy_extensions_to_source()


if __name__ == "__main__":
    setup(
        ext_modules=modules(testing()),
        packages=list(packages()),
        package_dir=packages(),
        package_data={"": ["*.pxd", "*.pyx", "*.pyi", "*.h", "py.typed", "*.html", "*.css", "*.js", "*.json", "*.txt"]},
        # Where it is no package, its files would be data of the package above.
        exclude_package_data={"": ["*.c"], "ksm": [] if testing() else ["testing/*"]},
        cmdclass={"build_ext": BuildExt},
        # A folder for each mode: file times cannot tell what an object was built with.
        options={"build": {"build_base": f"build/{MODE}"}, "build_ext": {"parallel": str(JOBS)}},
    )
