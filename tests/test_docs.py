# SPDX-License-Identifier: GPL-2.0-only
"""What docs/ lists is what there is. `tox -e docs` sees to links, and to pages that nobody is led to."""

import contextlib
import io
import random
import re
from pathlib import Path

import click
import pytest

import ksm
from ksm.cli.group import COMMANDS, main
from ksm.estimate.counters import KSM_STAT, SYSFS, VMSTAT
from ksm.estimate.reasons import REASONS

DOCS = Path(__file__).resolve().parents[1] / "docs"


def rows(page, heading):
    """The cells of the first table below a heading of docs/, without its head."""
    text = (DOCS / page).read_text().partition(f"# {heading}\n")[2]
    table = re.search(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table[1].splitlines()]


def test_every_file_of_sysfs_is_told_of():
    listed = {name.strip("`"): (can_be_set, since) for name, can_be_set, since, _ in rows("api.md", "The files")}
    eras = [*reversed(ksm.machine.ERAS)]
    for era in eras:
        with ksm.Machine("1M", era=era) as older:
            assert [name for name, (_, since) in listed.items() if eras.index(since) <= eras.index(era)] == older.ksm.names()
    with ksm.Machine("1M") as machine:
        assert list(listed) == machine.ksm.names()
        for name, (can_be_set, _) in listed.items():
            if can_be_set == "yes":
                setattr(machine.ksm, name, getattr(machine.ksm, name))
            else:
                with pytest.raises(AttributeError):
                    setattr(machine.ksm, name, 0)


@pytest.mark.parametrize("page", ["advise.md", "pictures.md", "sweep.md", "tenants.md", "watch.md"])
def test_examples_in_python_run(page, tmp_path, monkeypatch):
    """The example of a page, in a folder with two images."""
    chance = random.Random(1)
    contents = [chance.randbytes(4096) for _ in range(64)]
    for name in ("vm1.img", "vm2.img"):
        (tmp_path / name).write_bytes(b"".join(chance.choice(contents) for _ in range(256)))
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, page, "exec"), {})
    assert output.getvalue()


def counters_told():
    """What docs/counters.md tells of: {heading: {name: (formula, since, misread)}}."""
    found = {}
    for part in (DOCS / "counters.md").read_text().split("\n## ")[1:]:
        cells = [re.split(r" *\| *", row)[1:-1] for row in part.splitlines() if row.startswith("| `")]
        if cells:
            found[part.partition("\n")[0]] = {name.strip("`"): tuple(rest) for name, _, *rest in cells}
    return found


def test_every_counter_is_told_of():
    """Each file of sysfs, each line of ksm_stat and of vmstat that ksm doctor takes, in the kernel's order, with the same first version."""
    told = counters_told()
    with ksm.Machine("1M") as machine:
        sysfs, stat = machine.ksm.names(), list(machine.spawn().ksm_stat())
        vmstat = {name for name in machine.vmstat() if "ksm" in name}
    assert list(told["Files of /sys/kernel/mm/ksm"]) == sysfs == list(SYSFS)
    assert list(told["Lines of /proc/PID/ksm_stat"])[: len(stat)] == stat
    assert vmstat <= set(told["Lines of /proc/vmstat"])
    for heading, counters in zip(told, (SYSFS, KSM_STAT, VMSTAT), strict=False):
        first = {name: since.strip("*") for name, (_, since, _) in told[heading].items()}
        assert first == {name: counter.since for name, counter in counters.items()}
    assert {"KSM", "VmFlags"} == set(told["Lines of /proc/PID/smaps"])
    assert all(misread for table in told.values() for _, _, misread in table.values())


def example(page):
    """What the example of a page prints, and what its comments say that it prints."""
    [code] = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, page, "exec"), {})
    return output.getvalue().splitlines(), re.findall(r"^ *print\(.*\) +# (.*)$", code, re.MULTILINE)


def test_example_of_ksm_doctor():
    """It prints what its comments say."""
    printed, said = example("counters.md")
    assert printed == said != []


def test_example_of_ksm_why():
    """It prints what its comments say, and a line for each run of pages."""
    printed, said = example("why.md")
    assert [line for line in printed if not line.startswith("0x")] == said != []
    assert printed[1:4] == ["0x0 0x1000 alone", "0x1000 0x3000 within", "0x3000 0x4000 alone"]


def test_every_reason_is_told_of():
    """docs/why.md has a row for each reason of ksm why, in the same words."""
    text = (DOCS / "why.md").read_text().partition("## The reasons\n")[2].partition("\n## ")[0]
    told = [tuple(cell.strip() for cell in row.strip("|").split(" | ")) for row in text.splitlines() if "| `" in row]
    assert told == [(reason.title, f"`{reason.name}`", reason.sentence, reason.remedy or "-") for reason in REASONS]


def test_every_flag_of_a_page_is_told_of():
    flags = {name for name in dir(ksm) if name.startswith("PAGE_")} - {"PAGE_SIZE", "PAGE_FLAGS_SHIFT"}
    assert {name.strip("`") for name, _ in rows("api.md", "Words of page_table()")} == flags


def every_command():
    """Each command by its name, and each one of a command that has some by both names."""
    found = {}
    for name in COMMANDS:
        command = found[name] = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            context = click.Context(command)
            found |= {f"{name} {own}": command.get_command(context, own) for own in command.list_commands(context)}
    return found


def test_every_command_has_its_place():
    named = re.findall(r"^<!-- ksm (\w+(?: \w+)?) --help -->$", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(every_command())


def test_options_that_are_named_exist():
    commands = every_command()
    names = "|".join(sorted(commands, key=len, reverse=True))
    used = set()
    outside = ("README.md", "CONTRIBUTING.md", "tests/kernel/README.md", "tests/truth/README.md")
    for page in (*DOCS.glob("*.md"), *(DOCS.parent / name for name in outside)):
        for name, arguments in re.findall(rf"\bksm ({names})\b([^`\n|&]*)", page.read_text()):
            used |= {(name, option) for option in re.findall(r"(?<![^ ])--?[a-z][\w-]*", arguments)}
    assert {("scan", "--era"), ("verify", "--seed")} <= used
    for name, option in sorted(used):
        context = click.Context(commands[name])
        assert option in {each for parameter in commands[name].get_params(context) for each in parameter.opts}, (name, option)


def test_traps_keep_their_numbers():
    # Comments and tests name them by number.
    numbers = re.findall(r"^(\d+)\. \*\*", (DOCS / "traps.md").read_text(), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 43)]


def test_files_that_are_named_exist():
    pages = [*DOCS.glob("*.md"), DOCS.parent / "CONTRIBUTING.md"]
    path = re.compile(r"`((?:ksm|tests|benchmarks|include|docs)/[\w/]*(?:\.\w+)?)[`:]")
    named = {name for page in pages for name in path.findall(page.read_text())}
    assert {"ksm/mm/ksm.pyx", "tests/test_layers.py"} <= named
    assert [name for name in sorted(named) if not (DOCS.parent / name).exists()] == []


def test_what_tox_runs_is_what_contributing_says():
    """Each environment of tox.ini has a place in the table, and those that a bare tox runs are the first rows, and what is said beside."""
    contributing, text = ((DOCS.parent / name).read_text() for name in ("CONTRIBUTING.md", "tox.ini"))
    listed = set(re.search(r"^env_list = (.*)$", text, re.MULTILINE)[1].split(", ")) - {"py311", "py312", "py313"}
    environments = re.findall(r"^\[testenv:([\w-]+)(?:\{,([\w-]+)\})?\]$", text, re.MULTILINE)
    table = re.search(r"^\| `tox -e` .*\n\|[-|]+\|\n((?:\|.*\n)+)", contributing, re.MULTILINE)[1].splitlines()
    told = [re.findall(r"`([\w-]+)`", row.split("|")[1]) for row in table]
    names = {name for row in told for name in row}
    assert {name for name, _ in environments} <= names
    assert names <= {"py310", "py314", "py313t", "py314t"} | {name + end for name, more in environments for end in ("", more)}
    beside = re.findall(r"`([\w-]+)`", re.search(r"^`tox` runs the first four rows(.*) as CI does", contributing, re.MULTILINE)[1])
    assert {name for row in told[:4] for name in row} | set(beside) == listed
