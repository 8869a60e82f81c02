# SPDX-License-Identifier: GPL-2.0-only
"""README.md shows what really happens."""

import contextlib
import doctest
import io
import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ksm.cli.group import main

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """The names that the README's Python has defined at its end; and its output, `printed`, and its comments on that, `promised`."""
    found, output = {}, io.StringIO()
    [code] = blocks("python")
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), found)
    found["printed"] = output.getvalue().splitlines()
    found["promised"] = re.findall(r"^print\(.*\) +# (.*)$", code, re.MULTILINE)
    yield found
    found["machine"].close()


def test_the_example_prints_what_its_comments_say(names):
    assert names["printed"] == names["promised"] != []


@pytest.mark.parametrize("era", ["2.6.38", "6.1", "6.12", "7.3"])
def test_the_example_counts_the_same_in_each_era(era):
    """New pages wait in the LRU batches, which each era empties at the start of a pass: of 64 equal pages 63 are saved."""
    [code] = blocks("python")
    lines = code[:code.index("machine.ksm.scan()")].replace('memory="1G"', f'memory="4M", era="{era}"')
    found, output = {}, io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(lines, "README.md", "exec"), found)
    assert output.getvalue().split() == ["63", "1", "63"]
    found["machine"].close()


def test_errors_look_as_shown(names):
    [session] = blocks("pycon")
    test = doctest.DocTestParser().get_doctest(session, names, "README.md", "README.md", 0)
    output = io.StringIO()
    result = doctest.DocTestRunner(verbose=False).run(test, out=output.write, clear_globs=False)
    assert result.attempted == 3
    assert result.failed == 0, output.getvalue()


def test_files_that_are_named_exist():
    named = set(re.findall(r"`?((?:ksm|tests|benchmarks|include)/[\w/]+\.(?:py|pyx|pxd))\b", README.read_text()))
    assert {"ksm/mm/ksm.pyx", "include/linux/rbtree.pxd"} <= named
    assert [name for name in sorted(named) if not (README.parent / name).exists()] == []


def test_picture_of_a_scan():
    """The picture is there, and has the rows that a report has."""
    picture = README.read_text().partition("<!-- ksm scan: begin -->")[2].partition("<!-- ksm scan: end -->")[0]
    for row in ("KSM would free", "zero pages", "duplicates within one source", "duplicates across sources", "unshared", "volatile",
                "Metadata", "general_profit", "vm1.img", "overstates"):  # fmt: skip
        assert row in picture


def made(seed):
    """An image of 16 MiB: zeros, contents that are everywhere, and unique ones."""
    chance = random.Random(seed)
    kinds = (lambda: bytes(4096), lambda: b"%4096d" % chance.randrange(200), lambda: chance.randbytes(4096), lambda: chance.randbytes(4096))
    return b"".join(chance.choice(kinds)() for _ in range(4096))


def commands(page, name):
    """The commands between two marks of a page, and what each prints: (words, lines)."""
    text = page.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]
    found = []
    for line in text.splitlines():
        if line.startswith("    $ ksm "):
            found.append((line.removeprefix("    $ ksm ").split(), []))
        elif found:
            found[-1][1].append(line.removeprefix("    "))
    return found


def check_commands(found):
    """Each command prints the lines that are shown, and perhaps more. How well a file is compressed depends on the library."""
    size = re.compile(r" in [\d.]+ [KM]iB$", re.MULTILINE)
    for words, lines in found:
        result = CliRunner().invoke(main, words, prog_name="ksm", catch_exceptions=False)
        assert result.exit_code == 0, result.output
        shown = "\n".join(lines).rstrip()
        assert size.sub("", result.stdout).startswith(size.sub("", shown)), (words, result.stdout)
        for real, told in zip(re.findall(r" in ([\d.]+) ([KM])iB$", result.stdout, re.MULTILINE), size.findall(shown), strict=False):
            number, unit = re.match(r" in ([\d.]+) ([KM])iB", told).groups()
            assert unit == real[1]
            assert abs(float(number) - float(real[0])) <= 0.1 * float(number)
    return len(found)


def test_fingerprints(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        (tmp_path / f"vm{number}.img").write_bytes(made(number))
    assert check_commands(commands(README.read_text(), "ksm fingerprint")) == 4


def test_snapshots(tmp_path, monkeypatch):
    """The worked example of docs/fingerprint-files.md."""
    page = (README.parent / "docs" / "fingerprint-files.md").read_text()
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(compile(code, "fingerprint-files.md", "exec"), {})
    assert check_commands(commands(page, "as passes")) == 2
