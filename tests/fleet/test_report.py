# SPDX-License-Identifier: GPL-2.0-only
"""ksm fleet report beside a plain count, on a made fleet."""

import json
from collections import Counter, defaultdict

import pytest
from click.testing import CliRunner
from made import class_of, made, write_fleet
from plain import having, ledger_of, pairs_of, saved

import ksm.fleet
from ksm.cli.group import main
from ksm.fingerprint.classes import CLASSES

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def tenants(machines):
    blue = [f"host0[0-4]:{machine.name}" for machine in machines[:45]]
    return {"blue": blue, "red": [machine.name for machine in machines[45:90]]}


@pytest.fixture(scope="module")
def report(folder, tenants):
    return ksm.fleet.report([str(folder)], tenants=tenants)


def whole(ledger):
    return {name: ledger[name] for name in ("within", "same_host", "across_hosts", "kept")}


def test_ledger_is_that_of_a_plain_count(machines, report):
    zeros = sum(machine.contents.count(0) for machine in machines)
    value = report.json()
    assert whole(value["ledger"]) == ledger_of(machines)
    assert value["ledger"]["zero"] == zeros
    assert value["ledger"]["pages"] == sum(len(machine.contents) for machine in machines) == report.ledger.pages
    assert value["ledger"]["saved"] == report.ledger.within + report.ledger.same_host
    for kind, row in enumerate(value["classes"]):
        assert row["name"] == CLASSES[kind]
        assert whole(row) == ledger_of(machines, lambda content, kind=kind: content != 0 and class_of(content) == kind)
    assert value["classes"][CLASSES.index("zero")]["zero"] == zeros


def test_each_host_and_each_source(machines, report):
    by_host = defaultdict(list)
    for machine in machines:
        by_host[machine.host].append(machine)
    value = report.json()
    assert [host["name"] for host in value["hosts"]] == list(by_host)
    for host in value["hosts"]:
        own = ledger_of(by_host[host["name"]])
        assert (host["within"], host["same_host"], host["left"]) == (own["within"], own["same_host"], own["kept"])
        assert host["pages"] == host["zero"] + host["saved"] + host["left"]
        assert host["sources"] == 10
    found = having(machines)
    for machine, source in zip(machines, value["sources"], strict=True):
        own = set(machine.contents) - {0}
        assert source["name"] == f"{machine.host}:{machine.name}"
        assert (source["pages"], source["zero"], source["contents"]) == (len(machine.contents), machine.contents.count(0), len(own))
        assert source["common"] == sum(len(found[content]) > 1 for content in own)
        assert source["pages"] == source["zero"] + source["within"] + source["contents"]


def test_pairs_and_groups(machines, report):
    value = report.json()
    own = [len(set(machine.contents) - {0}) for machine in machines]
    pairs = pairs_of(machines)
    numbers = {source["name"]: place for place, source in enumerate(value["sources"])}
    most = sorted(pairs.values(), reverse=True)[: len(value["pairs"])]
    assert [pair["contents"] for pair in value["pairs"]] == most
    for pair in value["pairs"]:
        a, b = numbers[pair["a"]], numbers[pair["b"]]
        assert (pair["contents"], pair["error"], pair["low"], pair["high"]) == (pairs[a, b], 0, pairs[a, b], pairs[a, b])
        assert pair["alike"] == 2 * pairs[a, b] / (own[a] + own[b])
    groups = [[machines[numbers[name]] for name in group["sources"]] for group in value["groups"]]
    images = [{machine.image for machine in group} for group in groups]  # each image is a group
    assert sorted(images, key=min) == [{image} for image in range(12)]
    for group, some in zip(value["groups"], groups, strict=True):
        assert group["together"] == saved(some)
        hosts = defaultdict(list)
        for machine in some:
            hosts[machine.host].append(machine)
        assert (group["hosts"], group["now"]) == (len(hosts), sum(saved(each) for each in hosts.values()))
        assert group["gain"] == group["together"] - group["now"]


def test_one_host_has_no_others(few, few_folder):
    report = ksm.fleet.report([str(few_folder / "host00.parquet")])
    assert whole(report.json()["ledger"]) == ledger_of(few[:10])
    saved = f"{report.ledger.saved * 4:,.1f} KiB"
    assert report.answer.endswith(f" in 10 sources on 1 host, merging saves {saved} where they live.")
    assert report.ledger.across_hosts == 0
    assert "other hosts" not in report.text()


def test_a_group_is_a_matter_of_likeness(few_folder):
    everything = ksm.fleet.report([str(few_folder)], alike=0.01).json()["groups"]
    assert [len(group["sources"]) for group in everything] == [80]
    assert ksm.fleet.report([str(few_folder)], alike=1).json()["groups"] == []


def test_tenants(machines, report):
    whose = ["blue"] * 45 + ["red"] * 45 + ["no tenant"] * 310
    contents, pages, owned, cost = Counter(), Counter(), Counter(), 0
    several = set()
    for content, numbers in having(machines).items():
        owners = {whose[number] for number in numbers}
        if len(owners) > 1:
            several.add(content)
            contents[CLASSES[class_of(content)]] += 1
            hosts = defaultdict(set)
            for number in numbers:
                hosts[machines[number].host].add(whose[number])
            cost += sum(len(each) - 1 for each in hosts.values())
    for number, machine in enumerate(machines):
        for content in machine.contents:
            if content in several:
                pages[CLASSES[class_of(content)]] += 1
                owned[whose[number]] += 1
    found = report.json()["tenants"]
    assert found["cost"] == cost
    assert {row["name"]: row["contents"] for row in found["classes"]} == dict(contents)
    assert {row["name"]: row["pages"] for row in found["classes"]} == dict(pages)
    assert {row["name"]: row["common"] for row in found["tenants"]} == dict(owned)
    assert all(sum(row["tenants"]) == row["pages"] for row in found["classes"])
    assert cost > 0


def test_text_has_the_figures(report):
    text = report.text()
    ledger = report.ledger
    assert f"duplicates across hosts {ledger.across_hosts:>19,}".split() == next(
        line.split()[:4] for line in text.splitlines() if "duplicates across hosts" in line)
    assert max(map(len, text.splitlines())) <= 80
    assert max(map(len, report.text(60).splitlines())) <= 80
    assert report.answer in " ".join(text.split("\n\n")[0].split("\n"))
    assert "Merging across tenants saves" in text


def test_a_narrow_terminal_has_all_words_of_the_ledger(report):
    table = report.text(40).split("\n\n")[1].split("\n")
    assert max(map(len, table)) <= 40
    words = " ".join(" ".join(table).split())
    assert "Saved where they live" in words
    assert "duplicates across sources of a host" in " ".join(word for word in words.split() if not word[0].isdigit())
    assert "…" not in words


def test_command_says_what_the_library_says(few_folder, tmp_path):
    report = ksm.fleet.report([str(few_folder)], tenants={"blue": ["host00:*", "host01:*"], "red": ["vm00*"]}, sample=3)
    options = ["--tenant", "blue=host00:*,host01:*", "--tenant", "red=vm00*", "--sample", "1/3", "--temp", str(tmp_path)]
    done = CliRunner().invoke(main, ["fleet", "report", str(few_folder), "--json", *options])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == report.json()
    assert CliRunner().invoke(main, ["fleet", "report", str(few_folder), *options]).stdout == str(report)


def test_another_placement(few, few_folder, tmp_path):
    """Where each image lives alone, hosts save more."""
    path = tmp_path / "best.csv"
    path.write_text("source,host,remark\n" + "".join(f"{machine.name},{machine.home},x\n" for machine in few))
    moved = ksm.fleet.report([str(few_folder)], placement=str(path))
    assert whole(moved.json()["ledger"]) == ledger_of([machine._replace(host=machine.home) for machine in few])
    assert moved.ledger.saved > ksm.fleet.report([str(few_folder)]).ledger.saved


def test_sample_is_for_pairs_and_groups(few, few_folder):
    report = ksm.fleet.report([str(few_folder)])
    sampled = ksm.fleet.report([str(few_folder)], sample=2)
    assert sampled.ledger == report.ledger
    value = sampled.json()
    assert value["hosts"] == report.json()["hosts"]
    numbers = {source["name"]: place for place, source in enumerate(value["sources"])}
    pairs = pairs_of(few)
    for pair in value["pairs"]:
        assert pair["contents"] % 2 == 0 < pair["error"]
        # Those that are listed are the largest estimates, which are too large rather than too small.
        assert pair["low"] <= 1.3 * pairs[numbers[pair["a"]], numbers[pair["b"]]]
    assert "one of 2 contents" in sampled.text()


@pytest.mark.slow
def test_the_whole_fleet(tmp_path):
    machines = sorted(made(), key=lambda machine: machine.host)
    write_fleet(tmp_path, machines)
    found = ksm.fleet.report([str(tmp_path)], memory="1G")
    assert whole(found.json()["ledger"]) == ledger_of(machines)
    pairs = ksm.fleet.matrix([str(tmp_path)], memory="1G").pairs.to_pylist()
    assert {(row["a"], row["b"]): row["contents"] for row in pairs} == pairs_of(machines)
