# SPDX-License-Identifier: GPL-2.0-only
"""The headers are found, another package can cimport the port, and a wheel made from the sdist has everything."""

import configparser
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools

import ksm

SOURCE = Path(__file__).resolve().parents[1]
HEADERS = Path(ksm.get_include())
needs_source = pytest.mark.skipif(not (SOURCE / "setup.py").is_file(), reason="no source tree")

# The cimports that another package may use, one line each.
CIMPORTS = [
    "from linux.rbtree cimport RB_EMPTY_ROOT, rb_link_node, rb_node, rb_root",
    "from linux.list cimport INIT_LIST_HEAD, list_add_tail, list_empty, list_head",
    "from ksm.lib.rbtree cimport rb_erase, rb_first, rb_insert_color, rb_next",
    "from ksm.lib.xxhash cimport xxhash",
    "from ksm.machine cimport Machine",
    "from ksm.mm.ksm cimport ksm_do_scan, ksm_globals, ksm_rmap_item, ksm_stable_node",
]

CONSUMER = """
cdef struct item:
    rb_node node
    list_head list
    int key


cdef inline item *entry(rb_node *p) noexcept nogil:
    return <item *>(<char *>p - <size_t>&(<item *>NULL).node)


def sort(numbers):
    cdef item items[100]
    cdef rb_root root
    cdef rb_node **link
    cdef rb_node *parent
    cdef list_head head
    cdef int i
    root.rb_node = NULL
    INIT_LIST_HEAD(&head)
    for i in range(len(numbers)):
        items[i].key = numbers[i]
        link, parent = &root.rb_node, NULL
        while link[0] is not NULL:
            parent = link[0]
            link = &parent.rb_left if items[i].key < entry(parent).key else &parent.rb_right
        rb_link_node(&items[i].node, parent, link)
        rb_insert_color(&items[i].node, &root)
        list_add_tail(&items[i].list, &head)
    assert list_empty(&head) == (not numbers)
    found = []
    while not RB_EMPTY_ROOT(&root):
        parent = rb_first(&root)
        found.append(entry(parent).key)
        rb_erase(parent, &root)
    return found


def checksum(const unsigned char[::1] page):
    return <unsigned int>xxhash(&page[0], page.shape[0], 0)


def checksum_of_frame(Machine machine not None, unsigned long pfn):
    cdef const unsigned char[::1] frame = machine.frame(pfn)
    return <unsigned int>xxhash(&frame[0], frame.shape[0], 0)
"""

SETUP = """
import ksm
from Cython.Build import cythonize
from setuptools import Extension, setup

if __name__ == "__main__":
    extension = Extension("consumer", ["consumer.pyx"], include_dirs=[ksm.get_include()], extra_compile_args=["-O1", "-g0"])
    setup(name="consumer", ext_modules=cythonize([extension], include_path=[ksm.get_include(), *{extra!r}],
                                                    compiler_directives={{"language_level": 3, "freethreading_compatible": True}}))
"""

CHECK = """
import consumer
import ksm
assert consumer.sort([5, 3, 9, 3, 1, 7]) == [1, 3, 3, 5, 7, 9]
assert consumer.checksum(bytes(4096)) == 0x32D8BBDB
with ksm.Machine("1M") as machine:
    process = machine.spawn()
    process.write(addr := process.mmap(4096), b"page" * 1024)
    pfn = process.page_table(addr, 4096)[0] >> ksm.PAGE_FLAGS_SHIFT
    assert consumer.checksum_of_frame(machine, pfn) == consumer.checksum(process.read(addr, 4096))
    assert consumer.checksum_of_frame(machine, 0) == 0x32D8BBDB
print(ksm.__file__)
"""


# Without the compiled modules, which have tests of their own.
BUILD_PY = """
import runpy, sys
import Cython.Build
Cython.Build.cythonize = lambda modules, **_: modules
sys.argv = ["setup.py", "-q", "build_py", "--build-lib", sys.argv[1]]
runpy.run_path("setup.py", run_name="__main__")
"""


def python(*arguments, cwd, path):
    """Run this Python in the folder `cwd`, with ksm from the folder `path`."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def compile_and_run_consumer(folder, path):
    """Compiles and runs a package that cimports the ksm found in the folder `path`; says which ksm that was."""
    folder.mkdir()
    (folder / "consumer.pyx").write_text("\n".join([*CIMPORTS, CONSUMER]))
    # Cython looks on sys.path, which does not have an editable ksm.
    (folder / "setup.py").write_text(SETUP.format(extra=[str(path)]))
    python("setup.py", "-q", "build_ext", "--inplace", cwd=folder, path=path)
    return Path(python("-c", CHECK, cwd=folder, path=path).strip())


def test_version():
    assert ksm.__version__.count(".") == 2


def test_headers_are_found():
    assert (HEADERS / "linux/rbtree.pxd").is_file()
    assert (HEADERS / "linux/rbtree_types.h").is_file()


def test_every_folder_of_headers_is_a_package():
    for path in HEADERS.rglob("*.pxd"):
        assert (path.parent / "__init__.pxd").is_file(), path.parent


@pytest.mark.skipif(not Path("/usr/include/linux").is_dir(), reason="no kernel headers installed")
def test_no_header_hides_one_of_the_system():
    # With -Iinclude, ours comes first when the C library includes <linux/...>.
    hidden = [path for path in HEADERS.rglob("*.h") if Path("/usr/include", path.relative_to(HEADERS)).exists()]
    assert hidden == []


def test_cimport_from_another_package(tmp_path):
    used = compile_and_run_consumer(tmp_path / "consumer", Path(ksm.__file__).resolve().parents[1])
    assert used.resolve() == Path(ksm.__file__).resolve()


def built(monkeypatch, **attributes):
    """The extension modules that setup.py builds, with these attributes of the command build_ext, and the packages."""
    monkeypatch.chdir(SOURCE)
    how = runpy.run_path("setup.py")
    command = how["BuildExt"](setuptools.Distribution({"name": "ksm"}))
    monkeypatch.setitem(command.finalize_options.__globals__, "cythonize", lambda modules, **_: modules)
    vars(command).update(attributes)
    command.finalize_options()
    return {each.name for each in command.extensions}, set(how["packages"]())


@needs_source
@pytest.mark.parametrize(("asked", "attributes", "expected"), [
    (None, {}, False), ("", {}, False), ("0", {}, False), ("1", {}, True),
    (None, {"inplace": True}, True), (None, {"editable_mode": True}, True), ("0", {"inplace": True}, False), ("1", {"inplace": True}, True),
])  # fmt: skip
def test_what_only_tests_need_is_built_for_them_alone(monkeypatch, asked, attributes, expected):
    monkeypatch.delenv("KSM_TESTING", raising=False)
    if asked is not None:
        monkeypatch.setenv("KSM_TESTING", asked)
    everything = {".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.joinpath("ksm").rglob("*.pyx")}
    for_tests = {name for name in everything if name.startswith("ksm.testing.")}
    modules, packages = built(monkeypatch, **attributes)
    assert for_tests and modules == (everything if expected else everything - for_tests) | {"ksm._cyutility"}
    assert ("ksm.testing" in packages) == (asked == "1")        # a build in place copies no package
    assert {"ksm", "ksm.mm", "ksm.bench", "ksm.include.linux"} <= packages


@needs_source
@pytest.mark.parametrize("asked", ["0", "1"])
def test_no_file_of_it_goes_along(tmp_path, monkeypatch, asked):
    """Nor as data of the package above."""
    monkeypatch.setenv("KSM_TESTING", asked)
    tree, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(SOURCE, tree, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__", "tests"))
    python("-c", BUILD_PY, out, cwd=tree, path="")
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"ksm/machine.pyx", "ksm/views.pyi", "ksm/py.typed", "ksm/include/linux/rbtree.pxd", "ksm/study/page.css"} <= files
    assert any("testing" in file for file in files) == (asked == "1")


@needs_source
def test_every_other_way_to_build_has_what_tests_need():
    """What builds a copy of the tree does it in place; what builds a wheel to test it says so."""
    for name in ("tests/tree.py", "tests/mutants/scratch.py"):
        text = SOURCE.joinpath(name).read_text()
        commands = [line for line in text.splitlines() if "'setup.py'" in line or '"setup.py"' in line]
        assert commands and all("--inplace" in line for line in commands), name
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(SOURCE / "tox.ini")
    assert tox["pkgenv"]["set_env"].split("=")[0].strip() == "KSM_TESTING"
    for path in (SOURCE / "pyproject.toml", *SOURCE.glob(".github/workflows/wheels.yml")):
        assert "KSM_TESTING" not in path.read_text()


@pytest.mark.slow
@needs_source
def test_wheel_from_sdist(tmp_path, monkeypatch):
    monkeypatch.delenv("KSM_TESTING", raising=False)
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__")
    tree = tmp_path / "tree"
    shutil.copytree(SOURCE, tree, ignore=ignored)
    python("setup.py", "-q", "sdist", cwd=tree, path="")
    [sdist] = tree.glob("dist/*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    for suffix in ("py", "pyx", "pxd", "h"):
        for path in [*tree.joinpath("ksm").rglob(f"*.{suffix}"), *tree.joinpath("include").rglob(f"*.{suffix}")]:
            assert (unpacked / path.relative_to(tree)).is_file(), path

    assert [path for path in tree.joinpath("third_party").rglob("*.*") if not (unpacked / path.relative_to(tree)).is_file()] == []

    python("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, unpacked, cwd=tmp_path, path="")
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in tree.joinpath("include").rglob("*.*"):
        assert f"ksm/{path.relative_to(tree)}" in names
    modules = {str(path.relative_to(tree).with_suffix("")) for path in tree.joinpath("ksm").rglob("*.pyx")}
    modules = {module for module in modules if not module.startswith("ksm/testing/")}
    assert modules | {"ksm/_cyutility"} == {name.split(".")[0] for name in names if name.endswith(".so")}
    assert {f"{module}.pyx" for module in modules} | {"ksm/py.typed"} <= names
    assert not [name for name in names if "testing" in name]
    assert not [name for name in names if name.endswith(".c")]
    for licence in ("LICENSE", "LICENSES/BSD-2-Clause.txt", "third_party/blake3/LICENSE", "third_party/xxhash/LICENSE"):
        assert [name for name in names if name.endswith(f"/{licence}")], licence

    site = tmp_path / "site"
    python("-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel, cwd=tmp_path, path="")
    assert compile_and_run_consumer(tmp_path / "consumer", site) == site / "ksm/__init__.py"
