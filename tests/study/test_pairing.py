# SPDX-License-Identifier: GPL-2.0-only
"""Functions of mm/ksm.c beside those of the port, for any version of mm/ksm.c, from any place."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ksm.study.base import HASHES, base_hashes, base_version
from ksm.study.evolution import changes
from ksm.study.kernel import StudyError, read_kernel
from ksm.study.notes import ELSEWHERE, LABELS, RENAMED
from ksm.study.pairing import hashes_of, read_port, study
from ksm.study.source import omissions
from ksm.study.steps import NAMES, names_of_enum

GIT = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t", "HOME": "/nowhere",
       "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"}


def names(subject, change):
    return {pair.name for pair in subject.pairs if pair.change == change}


def rewritten(linux, tmp_path, replace):
    """Another version of the reader's 6.12: its text with some parts replaced."""
    text = (linux / "mm/ksm.c").read_text()
    for old, new in replace.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "ksm.c"
    path.write_text(text)
    return read_kernel(str(path))


# Linux 6.12

def test_all_functions_of_6_12_are_paired_line_by_line(linux):
    subject = study(read_kernel(str(linux)))
    assert subject.kernel.version.startswith("6.12.")
    assert subject.paired == subject.of_kernel > 120
    ours = [pair.name for pair in subject.pairs if pair.kernel is None]
    assert len(ours) > 20 and all(pair.reason == "OURS" or pair.within for pair in subject.pairs if pair.kernel is None)
    for pair in subject.pairs:
        rows = subject.pair(pair.within or pair.name).rows
        for side, function in enumerate((pair.kernel, pair.port)):
            lines = [row[side] for row in rows if row[side] is not None]
            helpers = {line for part in pair.parts for line in range(part.first, part.last + 1)} if side else set()
            if function:
                assert set(range(function.first, function.last + 1)) <= set(lines), f"{pair.name}: lines are missing"
            if not pair.within:
                assert [line for line in lines if line not in helpers] == sorted(set(lines) - helpers)
    rows = [row for pair in subject.pairs for row in (*pair.before, *pair.rows)] + subject.after
    for side, source in enumerate((subject.kernel.source, subject.port)):
        lines = [row[side] for row in rows if row[side] is not None]
        shown = set(lines)
        assert len(lines) == len(shown)
        assert [number for number, line in enumerate(source.lines, 1) if line.strip() and number not in shown] == []


def test_lines_that_say_the_same_stand_beside_each_other(linux):
    subject = study(read_kernel(str(linux)))
    rows = {(subject.kernel.source.lines[a - 1].strip(), subject.port.lines[b - 1].strip())
            for pair in subject.pairs for a, b in pair.rows if a and b}
    assert ("ksm_scan.seqnr++;", "g.ksm_scan.seqnr += 1") in rows
    assert ("rb_link_node(&rmap_item->node, parent, new);", "rb_link_node(&rmap_item.node, parent, new)") in rows
    assert ("out_unlock:", "# out_unlock:") in rows


def test_each_label_has_its_stand_in(linux):
    subject = study(read_kernel(str(linux)))
    labels = {f"{pair.name}:{label.name}": label for pair in subject.pairs for label in pair.labels}
    assert len(labels) >= 28
    assert [name for name, label in labels.items() if not label.port_line and not label.reason] == []
    assert set(LABELS) <= set(labels)
    assert "out_mn" in subject.port.lines[labels["write_protect_page:out_mn"].port_line - 1]


def test_what_is_elsewhere_is_in_the_kernel(linux):
    subject = study(read_kernel(str(linux)))
    told = {what for what, reason in omissions(subject) if reason}
    assert {what for what, _, _ in ELSEWHERE} <= told


def test_nothing_has_changed_against_the_version_of_the_hashes(linux):
    subject = study(read_kernel(str(linux)))
    assert set(base_hashes()) == set(subject.kernel.source.functions)
    if subject.kernel.version == base_version():
        assert changes(subject.kernel, None) == []
        assert json.loads(HASHES.read_text()) == hashes_of(subject.kernel)
    else:       # a later 6.12 of Debian's
        assert len(changes(subject.kernel, None)) < 20


def test_the_steps_are_those_of_the_port():
    assert names_of_enum() == NAMES


# Older and newer ones

@pytest.mark.slow
def test_debians_6_1():
    path = next(Path("/usr/src").glob("linux-source-6.1.tar.*"), None)
    if path is None:
        pytest.skip("needs Debian's linux-source-6.1")
    subject = study(read_kernel(str(path)))
    assert subject.kernel.version.startswith("6.1.")
    assert subject.of_kernel - subject.paired <= 3
    assert subject.paired > 80
    assert "should_skip_rmap_item" in subject.gone
    assert {pair.name: pair.renamed for pair in subject.pairs if pair.renamed}["ksm_get_folio"] == "get_ksm_page"


def test_an_older_version_lacks_functions_and_has_other_names(linux, tmp_path):
    kernel = rewritten(linux, tmp_path, {"ksm_get_folio(": "get_ksm_page(", "should_skip_rmap_item(": "another_name("})
    subject = study(kernel)
    pair = subject.pair("ksm_get_folio")
    assert pair.renamed == "get_ksm_page" and pair.kernel and pair.port and subject.pair("get_ksm_page") is pair
    lost = subject.pair("should_skip_rmap_item")
    assert lost.kernel is None and lost.reason == "not in this version"
    assert ("another_name()", "not in Linux 6.12") in omissions(subject)
    assert subject.gone == ["ksm_get_folio", "should_skip_rmap_item"]
    assert set(RENAMED.values()) <= set(read_port().functions)


def test_a_newer_version_tells_what_it_has_changed(linux, tmp_path):
    new = "\nstatic int brand_new(int x)\n{\n\treturn x;\n}\n\nstatic void break_cow("
    signature = "static unsigned int skip_age(rmap_age_t age)\n{"
    kernel = rewritten(linux, tmp_path, {"\nstatic void break_cow(": new, "ksm_scan.seqnr++;": "ksm_scan.seqnr += 1;",
                                         signature: f"{signature}\n/* a comment */"})
    subject = study(kernel)
    unchanged = names(study(read_kernel(str(linux))), "changed")
    assert names(subject, "changed") == unchanged | {"scan_get_next_rmap_item"}
    assert names(subject, "new") == {"brand_new"}
    found = {change.name: change for change in changes(subject.kernel, read_kernel(str(linux)))}
    assert {name: change.what for name, change in found.items()} == {"brand_new": "new", "scan_get_next_rmap_item": "changed"}
    kinds = {kind: line.strip("+- \t") for kind, line in found["scan_get_next_rmap_item"].diff if kind in ("add", "del")}
    assert kinds == {"add": "ksm_scan.seqnr +<mark>= 1</mark>;", "del": "ksm_scan.seqnr+<mark>+</mark>;"}


# Where the text comes from

def test_tree_file_and_tarball_are_the_same(tiny, tmp_path):
    archive = tmp_path / "linux.tar.xz"
    with tarfile.open(archive, "w:xz") as file:
        file.add(tiny, "linux-6.99")
    kernels = [read_kernel(str(path)) for path in (tiny, tiny / "mm/ksm.c", archive)]
    assert [kernel.version for kernel in kernels] == ["6.99.3-rc1"] * 3
    functions = ["stable_tree_search", "unstable_tree_search_insert", "cmp_and_merge_page"]
    assert [list(kernel.source.functions) for kernel in kernels] == [functions] * 3
    alone = tmp_path / "somewhere.c"
    alone.write_text((tiny / "mm/ksm.c").read_text())
    assert read_kernel(str(alone)).name == str(alone)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_checkout_bare_repository_and_revision(tiny, tmp_path):
    def git(*arguments, where=tiny):
        subprocess.run(["git", "-C", where, *arguments], check=True, capture_output=True, env=GIT)

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v1")
    (tiny / "mm/ksm.c").write_text((tiny / "mm/ksm.c").read_text() + "\nstatic void one_more(void)\n{\n}\n")
    git("commit", "-qam", "two")
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(tiny), str(bare))
    assert "one_more" in read_kernel(str(tiny)).source.functions
    assert "one_more" in read_kernel(str(bare)).source.functions
    assert "one_more" not in read_kernel(f"{bare}@v1").source.functions
    with pytest.raises(StudyError, match=r"no-such"):
        read_kernel(f"{bare}@no-such")


@pytest.mark.parametrize(("name", "content"), [
    ("memory.c", b"int do_wp_page(void)\n{\n\treturn 0;\n}\n"), ("empty.c", b""), ("binary", bytes(range(256)) * 20),
    ("words.txt", b"cmp_and_merge_page\n" * 9), ("truncated.tar.xz", b"\xfd7zXZ\x00\x00\x04" + b"\0" * 99), ("deep.c", b"{" * 100_000),
    ("wide.c", b"void f(" * 20_000), ("huge.c", b" " * (5 << 20)),
])
def test_what_is_not_mm_ksm_c_gets_one_clear_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StudyError) as error:
        read_kernel(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_or_nothing_gets_one_clear_line(tmp_path):
    for where in (tmp_path, tmp_path / "nothing", f"{tmp_path}@v6.12"):
        with pytest.raises(StudyError) as error:
            read_kernel(str(where))
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    archive = tmp_path / "other.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(__file__, "other/file.py")
    with pytest.raises(StudyError, match=r"no mm/ksm\.c in it"):
        read_kernel(str(archive))


def test_a_function_of_2011_stands_beside_the_ports_for_2011(tiny):
    subject = study(read_kernel(str(tiny)))
    pair = subject.pair("cmp_and_merge_page")
    assert (pair.kernel.name, pair.port.name, pair.row) == ("cmp_and_merge_page", "cmp_and_merge_page_2011", None)
    assert subject.pair("stable_tree_search").port.name == "stable_tree_search"
    text = (tiny / "mm/ksm.c").read_text()
    (tiny / "mm/ksm.c").write_text(text + "\nstatic int is_page_sharing_candidate(void)\n{\n\treturn 0;\n}\n")
    assert study(read_kernel(str(tiny))).pair("cmp_and_merge_page").port.name == "cmp_and_merge_page"
