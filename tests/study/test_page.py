# SPDX-License-Identifier: GPL-2.0-only
"""The page of `ksm study` without a browser, and the command."""

import html.parser
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import ksm
from ksm.cli.group import main
from ksm.study.article import STATEMENTS
from ksm.study.base import base_hashes
from ksm.study.kernel import read_kernel
from ksm.study.lens import steps_for
from ksm.study.lessons import LESSONS, record_lesson
from ksm.study.page import NAME, render
from ksm.study.pairing import read_port, study
from ksm.study.same import share
from ksm.study.steps import era_of

pytestmark = pytest.mark.once

PLAYER = Path(ksm.__file__).with_name("study") / "replay.js"
LOOK = Path(ksm.__file__).with_name("record") / "look.pxd"


class Reader(html.parser.HTMLParser):
    """Reads the elements, ids, links and scripts of a page, and checks that every element is closed."""

    VOID = frozenset(("meta", "link", "input", "br"))

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.scripts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []
        self.sources += [attrs[name] for name in ("src", "srcset", "data", "action") if name in attrs]
        self.sources += [attrs["href"]] if tag == "link" else []
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append([attrs.get("type", ""), ""])

    def handle_endtag(self, tag):
        if tag not in ("li", "tr", "td", "th", "option") or self.open[-1] == tag:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, ["study", *map(str, arguments)], prog_name="ksm", catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def invoke_replay(*arguments):
    result = CliRunner().invoke(main, ["replay", *arguments], prog_name="ksm")
    assert result.exit_code == 1
    return result.stdout, result.stderr


def check_page(text):
    page = Reader(text)
    assert len(page.ids) == len(set(page.ids))
    lessons = {"lessons/" + "/".join(statement.scene) for statement in STATEMENTS}
    assert [link for link in page.links if not (link.startswith("#") and (link[1:] in page.ids or link[1:] in lessons))] == []
    assert page.sources == ["data:,"]
    assert not re.search(r"url\((?!#)|@import|\bfetch\(|XMLHttpRequest|import\(", text)
    return page


def test_the_port_alone():
    text = render(None, [record_lesson("equal")])
    page = check_page(text)
    assert {f"f-{name}" for name in read_port().functions} <= set(page.ids)
    assert "stable_tree_search" in text and "--kernel" in text
    assert not [name for name in page.ids if re.fullmatch(r"k\d+", name)]


def test_both_sides(linux):
    kernel = read_kernel(str(linux))
    text = render(kernel, [record_lesson(lesson.key) for lesson in LESSONS])
    page = check_page(text)
    shown = set(page.ids)
    same = share(kernel)
    assert f"of the statements are the same,\n      {same.same} of {same.statements}, in" in text
    for source, side in ((kernel.source, "k"), (read_port(), "p")):
        assert [number for number, line in enumerate(source.lines, 1) if line.strip() and f"{side}{number}" not in shown] == []
    data = [json.loads(text) for kind, text in page.scripts if kind == "application/json"]
    assert [each["title"] for each in data if "scenes" in each] == [lesson.title for lesson in LESSONS]
    assert all(step["kernel"] and step["port"]["6.12"] for step in data[0] if step["function"])


def test_a_kernel_with_other_functions(tiny):
    check_page(render(read_kernel(str(tiny)), []))
    subject = study(read_kernel(str(tiny)))
    assert subject.paired == subject.of_kernel == 3
    assert len(subject.gone) == len(base_hashes()) - 3


def test_nothing_in_a_recording_or_a_kernel_ends_the_script(tiny):
    evil = {**record_lesson("equal"), "title": "</script><script>alert(1)</script>", "notes": ["</script>", "<!--"]}
    (tiny / "mm/ksm.c").write_text((tiny / "mm/ksm.c").read_text() + "/* </code></script><img src=x onerror=y> & \" ' */\n")
    page = check_page(render(read_kernel(str(tiny)), [evil]))
    data = [json.loads(text) for kind, text in page.scripts if kind == "application/json" and text.startswith("{")]
    assert evil["title"] in [each.get("title") for each in data]


# The command

def test_it_writes_a_page(tmp_path, tiny):
    with ksm.Machine(memory="4M", max_memory="4M", plain=True) as machine:
        with machine.record() as recording:
            machine.ksm.scan()
        recording.save(tmp_path / "mine.json", "My own recording")
    out, _ = invoke("--kernel", tiny, "-o", tmp_path / "new/folder", "--recording", tmp_path / "mine.json")
    path = tmp_path / "new/folder" / NAME
    assert out.startswith(f"{path}: ")
    text = path.read_text()
    assert "Linux 6.99.3-rc1" in text and "My own recording" in text and record_lesson("write")["title"] in text


def test_a_replayed_workload_is_recorded(tmp_path):
    workload = {"name": "two pages", "procs": [{"name": name, "vmas": [{"name": "m", "pages": 2, "contents": [1, 2], "mergeable": True}]}
                                               for name in ("a", "b")], "steps": [{"op": "scan", "passes": 3}]}
    (tmp_path / "workload.json").write_text(json.dumps(workload))
    arguments = ["replay", str(tmp_path / "workload.json")]
    plain = CliRunner().invoke(main, arguments, prog_name="ksm", catch_exceptions=False)
    result = CliRunner().invoke(main, [*arguments, "--record", str(tmp_path / "r.json")], prog_name="ksm", catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(plain.stdout)
    recording = json.loads((tmp_path / "r.json").read_text())
    assert recording["title"] == "two pages" and any("scan" in note for note in recording["notes"])
    invoke("--recording", tmp_path / "r.json", "-o", tmp_path)
    assert "two pages" in (tmp_path / NAME).read_text()
    _, error = invoke_replay(*arguments[1:], "--record", "/proc/nowhere")
    assert error == "ksm: /proc/nowhere cannot be written: No such file or directory\n"


def test_two_kernels_are_compared(tmp_path, tiny):
    newer = tmp_path / "newer.c"
    newer.write_text((tiny / "mm/ksm.c").read_text().replace("\treturn;\n", "\tbarrier();\n"))
    invoke("--kernel", newer, "--kernel", tiny, "-o", tmp_path)
    text = (tmp_path / NAME).read_text()
    assert "1 functions differ" in text and '<span class="add">+        barrier();</span>' in text


def test_words_name_the_version_that_is_compared_with(tmp_path, tiny):
    """The labels at functions are against 6.12, whose functions are known. The list of changes is against the second tree."""
    newer, older = tmp_path / "newer.c", tmp_path / "older.c"
    text = (tiny / "mm/ksm.c").read_text()
    newer.write_text(text.replace("\treturn;\n", "\tbarrier();\n") + "\nstatic void brand_new(void)\n{\n\tbarrier();\n}\n")
    older.write_text(text + "\nstatic void long_gone(void)\n{\n\tbarrier();\n}\n")
    (tiny / "mm/ksm.c").write_text(older.read_text())
    page = render(read_kernel(str(newer)), [], read_kernel(str(tiny)))
    changes = page[page.index('<section class="prose" id="changes">'):]
    assert "Against 6.99.3-rc1</a>" in page and "The labels at the functions compare with Linux 6.12" in changes
    labels = set(re.findall(r'<small class="tag \w+">(.*?)</small>', changes))
    assert labels == {"differs from 6.99.3-rc1", "not in 6.99.3-rc1", "only in 6.99.3-rc1"}
    assert "6.12" not in changes[changes.index("functions differ"):].split("</section>")[0]
    check_page(page)            # no link to the function that neither file here has


def test_a_function_that_moved_to_another_file_is_no_omission(tiny):
    (tiny / "mm/ksm.c").write_text((tiny / "mm/ksm.c").read_text() + "\nstatic int memcmp_pages(void)\n{\n\treturn 0;\n}\n")
    page = render(read_kernel(str(tiny)), [])
    assert '<small class="tag">in ksm/mm/util.pxd: later versions have it in mm/util.c</small>' in page


# Orders of a visit, in our own words: what tells a version's era
STABLE = "\tkpage = stable_tree_search(page);\n"
CHECKSUM = "\tchecksum = calc_checksum(page);\n"
FUNCTIONS = {"limit": "is_page_sharing_candidate", "smart": "should_skip_rmap_item"}


@pytest.mark.parametrize(("order", "has", "sign", "era"), [
    (STABLE + CHECKSUM, [], "", "2.6.38"), (STABLE + CHECKSUM, [], "merge_across_nodes", ""),
    (STABLE + CHECKSUM, ["limit"], "merge_across_nodes", "6.1"), (STABLE + CHECKSUM, ["limit", "smart"], "", ""),
    (CHECKSUM + STABLE, ["limit", "smart"], "", "6.12"), (CHECKSUM + STABLE, ["limit", "smart"], "item->linear_page_index", "7.3"),
    ("", ["limit"], "", ""),
])
def test_lines_are_lit_where_the_version_takes_the_steps_in_that_order(tiny, order, has, sign, era):
    text = (tiny / "mm/ksm.c").read_text().replace("\tstable_tree_search();\n\tunstable", order + "\tunstable")
    text += "".join(f"\nstatic bool {FUNCTIONS[name]}(void)\n{{\n\treturn true;\n}}\n" for name in has) + f"/* {sign} */\n"
    (tiny / "mm/ksm.c").write_text(text)
    kernel = read_kernel(str(tiny))
    assert era_of(kernel.source) == era
    # A step that this version does not take has no line.
    lines = {step["name"]: step["kernel"] for step in steps_for(kernel, read_port())}
    assert lines["CHANGED"] == lines["SKIPPED"] == {}
    assert bool(lines["STABLE_MISS"]) == bool(era and order)


def test_a_function_in_the_terminal(linux, tmp_path):
    out, _ = invoke("--kernel", linux, "--diff", "break_cow")
    assert [line for line in out.splitlines() if "mmap_read_lock(mm);" in line and line.endswith("mmap_read_lock(mm)")]
    assert not (tmp_path / NAME).exists()
    out, _ = invoke("--kernel", linux, "--diff", "globals_of")
    assert "not in mm/ksm.c: it is ours" in out
    _, error = invoke("--kernel", linux, "--diff", "no_such_function", code=1)
    assert error == "ksm: there is no function no_such_function() on either side\n"


def test_a_narrow_terminal(linux, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    out, _ = invoke("--kernel", linux, "--diff", "write_protect_page")
    assert max(map(len, out.splitlines())) <= 90
    assert all(line[43:46] in (" │ ", " │", "─┼─") for line in out.splitlines())


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--diff", "break_cow"], 2, "ksm study: --diff needs --kernel (ksm study --help)"),
    (["--kernel", "/nowhere/linux"], 1, "ksm: /nowhere/linux: no such file, tree or GIT@REVISION"),
    (["--kernel", "/etc/passwd"], 1, "ksm: /etc/passwd is not mm/ksm.c: there is no function cmp_and_merge_page() in it"),
    (["--recording", "/etc/passwd"], 1, "ksm: /etc/passwd is not a recording: it is not JSON: Expecting value: line 1 column 1 (char 0)"),
    (["-o", "/proc/nowhere"], 1, "ksm: /proc/nowhere/ksm-study.html cannot be written: No such file or directory"),
    (["--kernel", "a", "--kernel", "b", "--kernel", "c"], 2, "ksm study: --kernel is given once, or twice to compare (ksm study --help)"),
])
def test_errors_are_one_line(arguments, code, message):
    out, error = invoke(*arguments, code=code)
    assert (out, error) == ("", message + "\n")


def test_the_players_bits_are_those_of_a_recording():
    names, numbers = re.search(r"^const \[(BIT_KSM.*?)\] = \[(.*?)\];", PLAYER.read_text(), re.MULTILINE).groups()
    of_player = dict(zip(names.split(", "), map(int, numbers.split(", ")), strict=True))
    of_entries = re.findall(r"^    (BIT_\w+) = (\d+)$", LOOK.read_text(), re.MULTILINE)
    ours = {name: int(number) for name, number in of_entries} | {
        f"BIT_{name}": getattr(ksm, f"PAGE_{name}") for name in ("KSM", "ZERO", "KSM_ZERO", "SWAPPED")}
    assert of_player.keys() >= {"BIT_KSM", "BIT_SWAPPED", "BIT_HUGE"}
    assert of_player == {name: ours[name] for name in of_player}
