# SPDX-License-Identifier: GPL-2.0-only
"""The last words of a scan: settled or not, of what, and the command to type next."""

import pytest
from click.testing import CliRunner

from ksm.cli.group import COMMANDS, QUESTIONS, main
from ksm.estimate.already import Already
from ksm.estimate.doubt import Doubt
from ksm.estimate.next_step import in_a_word, next_command
from ksm.estimate.scan import Scan
from ksm.sources import open_file

from .test_scan import Changing, write_image

ALL = {*COMMANDS, "why"}


@pytest.fixture
def result_of(tmp_path):
    """A function that scans an image of these pages."""

    def result_of(numbers, **options):
        source = open_file(write_image(tmp_path / "image", numbers))
        try:
            with Scan([source], **options) as scan:
                return scan.run()
        finally:
            source.close()

    return result_of


def live(*sources):
    with Scan(list(sources)) as scan:
        return scan.run(interval=0)


def test_settled(result_of):
    assert in_a_word(result_of([1] * 40 + [*range(2, 9)])) == "Settled in 3 passes, of a still image."
    result = live(Changing())
    assert in_a_word(result) == "Settled in 3 passes, of a process; 80.0 KiB changed between them."
    assert in_a_word(result._replace(settled=False, passes=10)).startswith("Not settled after 10 passes, of a process; 80.0 KiB changed")
    assert in_a_word(result._replace(doubts=[Doubt(10, 0, "")])).endswith("; 40.0 KiB in doubt.")
    assert in_a_word(live(Changing(), Changing("other"))).startswith("Settled in 3 passes, of processes; 160.0 KiB")


def test_no_pages():
    class Empty(Changing):
        def refresh(self, number):
            pass

    with Scan([Empty()]) as scan:
        result = scan.run(interval=0)
    assert in_a_word(result) == ""
    assert next_command(result, ["pid:1"], ALL) == ("", "")


def test_next(result_of):
    """The command that fits, with the sources as a shell takes them."""
    some = result_of([1] * 400 + [*range(2, 9)])
    assert next_command(some, ["image"], ALL) == ("which knobs, and what ksmd costs", "ksm sweep image")
    assert next_command(some, ["my image", "it's"], ALL)[1] == "ksm sweep 'my image' 'it'\"'\"'s'"
    assert next_command(some, [f"image-{number}-of-many" for number in range(9)], ALL)[1] == "ksm sweep SOURCE..."
    assert next_command(some, ["-"], ALL) == ("", "")
    assert next_command(some, ["pid:5"], ALL) == ("which mappings pay", "ksm advise pid:5")
    assert next_command(some, [], ALL)[1] == "ksm sweep"
    assert next_command(result_of(range(1, 50)), ["image"], ALL) == ("why nothing merges", "ksm why image")
    assert next_command(result_of([*range(1, 500), 499]), ["image"], ALL) == ("why no more merges", "ksm why image")
    assert next_command(result_of(range(1, 50)), ["image"], {"scan"}) == ("", "")
    zeros = result_of([0] * 400 + [5, 5])
    assert next_command(zeros, ["image"], ALL)[1] == "ksm sweep image --vary use_zero_pages=0,1"
    done = some._replace(already=Already(some.ledger.freed, some.ledger.freed))
    assert next_command(done, ["pid:5"], ALL) == ("what the counters of KSM mean, and what is wrong", "ksm doctor")
    unsettled = live(Changing())._replace(settled=False)
    half = some.ledger.pages // 2
    for volatile, name in ((half, "sweep"), (half + 1, "why")):
        assert next_command(some._replace(ledger=some.ledger._replace(volatile=volatile)), ["image"], ALL)[1] == f"ksm {name} image"
    moving = unsettled._replace(ledger=unsettled.ledger._replace(volatile=2))
    assert next_command(moving, [], ALL) == ("how it changes, and when it settles", "ksm watch")


# Each question that people ask, and the command that answers it
ASKED = {
    "What would I save?": "scan", "Why does nothing merge": "why", "Which knobs?": "sweep", "What does ksmd cost?": "sweep",
    "Has it settled?": "scan", "When has it settled?": "sweep", "Is it only zero pages?": "scan",
    "What do these counters mean": "doctor", "Is it safe between tenants (--tenant)?": "scan",
}  # fmt: skip


def test_help_has_the_questions():
    """All commands are in the help, each once, and each question of people leads to one."""
    named = [name for commands in QUESTIONS.values() for name in commands]
    assert len(named) == len(set(named))
    assert set(COMMANDS) <= set(named)
    for width in (60, 80, 120):
        result = CliRunner().invoke(main, ["--help"], prog_name="ksm", env={"COLUMNS": str(width)})
        text = " ".join(result.output.split())
        lines = [line.split() for line in result.output.splitlines()]
        assert all([name] == [line[0] for line in lines if line[:1] == [name]] for name in COMMANDS)
        for question, name in ASKED.items():
            if name in COMMANDS:
                assert question in text
                place = text.index(question)
                before = [each for each in COMMANDS if 0 <= text.find(f" {each} ") < place]
                assert max(before, key=lambda each: text.find(f" {each} ")) == name, question
