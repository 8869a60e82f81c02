# SPDX-License-Identifier: GPL-2.0-only
"""The queries of a fleet beside a plain count in Python, on a made fleet."""

from collections import Counter

import pytest
from made import class_of
from plain import having, pairs_of
from pyarrow import parquet

from ksm.fleet import queries
from ksm.fleet.asking import asking, bits_of, no_progress
from ksm.fleet.engines.steps import Asked, Job, Options, Room, ask, spread
from ksm.fleet.files import FleetError

pytestmark = pytest.mark.once


def test_pairs_and_patterns_are_those_of_a_plain_count(machines, fleet, tmp_path):
    pairs = pairs_of(machines)
    patterns = Counter(tuple(sorted(numbers)) for numbers in having(machines).values() if len(numbers) > 1)
    assert [member.own for member in fleet.members] == [machine.name for machine in machines]
    with asking(fleet, Options(temp=str(tmp_path)), progress=no_progress) as asked:
        answers = asked.ask([queries.PATTERNS])
        assert answers["patterns"] == {(key,): (count,) for key, count in patterns.items()}
        for dense in (20 * 10**6, 0):  # all by joining, or by bits as far as may be
            answers = asked.ask([queries.pairs(dense)], narrow=True)
            assert {(row["a"], row["b"]): row["contents"] for row in answers["pairs"].to_pylist()} == pairs
    assert list(tmp_path.iterdir()) == []


def test_parts_add_up(machines, fleet, tmp_path, monkeypatch):
    """Whatever the number of parts and jobs, the answers are the same."""
    asked_of = [queries.HELD, queries.COMMON, queries.MET, queries.HOSTS]
    answers = []
    for bits, batch in ((0, 1 << 30), (3, 4000)):
        monkeypatch.setattr("ksm.fleet.asking.bits_of", lambda *_, bits=bits: bits)
        monkeypatch.setattr("ksm.fleet.asking.BATCH", batch)
        with asking(fleet, Options(temp=str(tmp_path)), progress=no_progress) as asked:
            assert asked.parts == 1 << bits
            answers.append(asked.ask(asked_of))
    assert answers[0] == answers[1]
    own = Counter((number, class_of(content)) for number, machine in enumerate(machines) for content in set(machine.contents))
    assert {key: contents for key, (_, contents) in answers[0]["held"].items()} == dict(own)


def test_a_working_folder_that_is_not_seen(fleet, tmp_path):
    """As on a worker whose /tmp is its own: an error on each way, and never the numbers of what happens to be there."""
    room = Room(None, 1, str(tmp_path))
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    seen.mkdir()
    job = Job(fleet.members[:10], 1, 0)
    folder = spread(job, room, str(seen))
    asked = Asked([folder], [(number, 0, 0, -1) for number in range(10)], [queries.HELD], keep=True)
    with pytest.raises(FleetError, match=r"unseen: it is not there .*--temp"):
        spread(job, room, str(unseen))
    with pytest.raises(FleetError, match=r"unseen: it is not there .*--temp"):
        ask(0, asked, room, str(unseen))
    seen.rename(unseen)
    with pytest.raises(FleetError, match=r"seen.*: it is not there .*--temp"):
        ask(0, asked, room, str(unseen))
    assert ask(0, asked._replace(folders=[folder.replace("/seen/", "/unseen/")]), room, str(unseen)).found["held"]


def test_parts_fit_into_memory():
    assert [bits_of(rows, 1 << 30) for rows in (0, 1 << 20, 1 << 25, 200_000_000)] == [0, 0, 3, 6]
    # There is something to do for each worker of a cluster, unless there is little to do.
    assert [bits_of(rows, 1 << 40, 8) for rows in (0, 1 << 20, 1 << 22, 1 << 25)] == [0, 0, 2, 3]


def test_rows_that_are_missing_are_noticed(fleet, tmp_path):
    """As on a file system that does not show all files to all."""
    with asking(fleet, Options(temp=str(tmp_path)), progress=no_progress) as asked:
        [file] = (tmp_path / asked.folders[0]).rglob("*.parquet")
        rows = parquet.read_table(file)
        parquet.write_table(rows.slice(1), file)
        with pytest.raises(FleetError, match=r"pages are there of 26,880: all workers have to see the same files"):
            asked.ask([queries.HELD])
