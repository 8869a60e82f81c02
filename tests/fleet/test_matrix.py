# SPDX-License-Identifier: GPL-2.0-only
"""ksm fleet matrix: beside a plain count, from a sample, and as files."""

import csv
import io
import json
import random
from itertools import pairwise
from math import sqrt

import pytest
from click.testing import CliRunner
from made import made, write_fleet
from plain import pairs_of
from pyarrow import parquet

import ksm.fleet
from ksm.cli.group import main
from ksm.fleet.sample import estimate

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def matrix(folder):
    return ksm.fleet.matrix([str(folder)])


@pytest.fixture(scope="module")
def small(few_folder):
    return ksm.fleet.matrix([str(few_folder)])


def invoke(*words):
    done = CliRunner().invoke(main, ["fleet", "matrix", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done


def test_matrix_is_that_of_a_plain_count(machines, matrix):
    pairs = pairs_of(machines)
    assert {(row["a"], row["b"]): row["contents"] for row in matrix.pairs.to_pylist()} == pairs
    assert matrix.contents == [len(set(machine.contents) - {0}) for machine in machines]
    a, b = next(iter(pairs))
    assert matrix.common(a, b).value == matrix.common(b, a).value == pairs[a, b]


def test_alike_sources_stand_side_by_side(machines, matrix):
    """In the order of the matrix, the machines of an image follow each other."""
    images = [machines[number].image for number in matrix.order]
    assert sorted(matrix.order) == list(range(400))
    assert sum(one != other for one, other in pairwise(images)) == 11


def test_each_form_says_the_same(few, few_folder, small, tmp_path):
    rows = list(small.rows())
    names = {f"{machine.host}:{machine.name}": number for number, machine in enumerate(few)}
    assert {(names[row["a"]], names[row["b"]]): row["contents"] for row in rows} == pairs_of(few)
    printed = list(csv.DictReader(io.StringIO(invoke(few_folder).stdout)))
    assert [(row["a"], row["b"], int(row["contents"]), float(row["alike"])) for row in printed] == [tuple(row.values()) for row in rows]
    said = invoke(few_folder, "-o", tmp_path / "m.parquet").stdout
    assert said == f"{tmp_path}/m.parquet: {len(rows):,} pairs of 80 sources\n"
    assert parquet.read_table(tmp_path / "m.parquet").to_pylist() == rows
    value = json.loads(invoke(few_folder, "--form", "json").stdout)
    assert value == small.json()
    assert value["pairs"] == rows
    invoke(few_folder, "-o", tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == value


def test_pairs_with_little_in_common_are_left_out(few, few_folder):
    printed = list(csv.DictReader(io.StringIO(invoke(few_folder, "--least", 40).stdout)))
    assert sorted(int(row["contents"]) for row in printed) == sorted(count for count in pairs_of(few).values() if count >= 40)


def test_sample_beside_the_exact_matrix(tmp_path):
    """The errors are of the size that is said, and the intervals have the true number in about 95 of 100 cases.

    Pairs of one fleet have the same contents, and are wrong together. So the fleet has other fingerprints each time.
    """
    machines = made(8)[35:47]
    true = pairs_of(machines)
    right, spread = 0, []
    for key in range(8):
        folder = tmp_path / str(key)
        folder.mkdir()
        write_fleet(folder, machines, key=f"{key:08}")
        sampled = ksm.fleet.matrix([str(folder)], sample=4)
        found = {(row["a"], row["b"]): estimate(row["contents"], 4) for row in sampled.pairs.to_pylist()}
        by_number = numbered(sampled, machines)
        assert {tuple(sorted((by_number[a], by_number[b]))) for a, b in found} <= true.keys()
        every = {tuple(sorted((by_number[a], by_number[b]))): each for (a, b), each in found.items()}
        for pair, count in true.items():
            each = every.get(pair, estimate(0, 4))
            right += each.low <= count <= each.high
            spread.append((each.value - count) / sqrt(count * 3))
    assert 0.9 < right / len(spread) <= 0.99
    assert 0.8 < sqrt(sum(each * each for each in spread) / len(spread)) < 1.2
    header = invoke(folder, "--sample", "1/4").stdout.partition("\n")[0]
    assert header == '"a","b","contents","error","low","high","alike"'


def numbered(matrix, machines):
    """For each source of a matrix, the place of its machine."""
    places = {machine.name: place for place, machine in enumerate(machines)}
    return [places[member.own] for member in matrix.fleet.members]


@pytest.mark.parametrize(("true", "sample"), [(400, 8), (50, 8), (600, 64)])
def test_interval_holds_the_true_count(true, sample):
    """In 95 of 100 cases, over samples that are drawn at random; the standard error is what it is over all of them."""
    chance = random.Random(true)
    counted = [sum(chance.random() < 1 / sample for _ in range(true)) for _ in range(1000)]
    estimates = [estimate(count, sample) for count in counted]
    right = sum(each.low <= true <= each.high for each in estimates) / len(estimates)
    assert 0.93 <= right <= 0.98
    error = sqrt(sum((each.value - true) ** 2 for each in estimates) / len(estimates))
    assert abs(error / sqrt(true * (sample - 1)) - 1) < 0.1
    assert abs(sum(each.value for each in estimates) / len(estimates) / true - 1) < 0.05


def test_estimate_of_all_is_exact():
    assert estimate(7, 1) == (7, 0, 7, 7)
    assert estimate(0, 10)[:3] == (0, 0, 0)
