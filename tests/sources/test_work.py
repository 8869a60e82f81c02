# SPDX-License-Identifier: GPL-2.0-only
"""Pieces are read by several threads, or by as many as there can be."""

import threading

import pytest

from ksm.sources.pieces import Piece
from ksm.sources.work import in_order


class Number(Piece):
    def __init__(self, number):
        self.number = number

    def read(self, buffer, sink):
        raise NotImplementedError


@pytest.fixture
def room(monkeypatch):
    """Sets how many threads can be started from now on, as pids.max of a cgroup or ulimit -v would."""
    start = threading.Thread.start
    left = []

    def limited(thread):
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return lambda number: left.extend([None] * number)


@pytest.mark.parametrize("threads", [0, 1, 2, 9])
def test_there_is_no_room_for_threads(room, threads):
    room(threads)
    worked = []

    def work(piece, buffer):
        assert len(buffer)
        worked.append(piece.number)
        return -piece.number

    assert [*in_order(map(Number, range(100)), work, 4)] == [-number for number in range(100)]
    assert sorted(worked) == [*range(100)]


def test_there_is_room_later(room):
    """What was done without a thread is not done again."""
    worked = []

    def work(piece, buffer):
        worked.append(piece.number)
        if piece.number == 10:
            room(4)

    assert len([*in_order(map(Number, range(50)), work, 4)]) == 50
    assert sorted(worked) == [*range(50)]


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_the_first_error_is_raised(room, threads):
    room(threads)

    def work(piece, buffer):
        if piece.number >= 20:
            raise ValueError(piece.number)

    with pytest.raises(ValueError, match="20"):
        [*in_order(map(Number, range(50)), work, 4)]
