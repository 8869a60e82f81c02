# SPDX-License-Identifier: GPL-2.0-only
"""ksm fleet place and ksm fleet check on fingerprint files, as a user calls them; and what they refuse."""

import csv
import io
import json
import math
import re

import pytest

pytest.importorskip("numpy")

from commands import invoke, refused
from made import SIZES, Machine, write_file, write_fleet

import ksm
import ksm.fleet
from ksm.fleet.engines.steps import Options
from ksm.fleet.placing import placing, question
from ksm.fleet.placing.bound import Bound
from ksm.fleet.placing.question import Asked, plan_for
from ksm.fleet.placing.tables import Headroom, headroom_of, pages_of, split_names

pytestmark = pytest.mark.once
ROOM = 2 * sum(SIZES)  # pages of a host, before sharing


def taken(machines, hosts):
    """Distinct contents on all hosts, counted with sets. `hosts` has the host of each machine."""
    found = {}
    for machine, host in zip(machines, hosts, strict=True):
        found.setdefault(host, set()).update(machine.contents)
    return sum(map(len, found.values()))


@pytest.mark.parametrize("fit", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_the_made_fleet(fleet, machines, fit):
    """What is saved is what a plain count says, and at least 95 % of what the placement saves that the fleet was made of."""
    asked = Asked(capacity=ROOM, headroom=Headroom(), fit=fit)
    plan = plan_for(fleet, asked, Options(), rounds=5)
    now = taken(machines, [machine.host for machine in machines])
    home = taken(machines, [machine.home for machine in machines])
    assert (plan.before, plan.after) == (now, taken(machines, list(plan.placement.values())))
    assert plan.saving >= 0.95 * (now - home)
    assert plan.saving <= plan.bound
    assert now - home <= plan.bound
    filled = {}
    for machine, host in zip(machines, plan.placement.values(), strict=True):
        filled.setdefault(host, []).append(machine)
    for some in filled.values():
        assert (sum(len(machine.contents) for machine in some) if fit == "before" else taken(some, ["h"] * len(some))) <= ROOM


@pytest.fixture
def few(tmp_path):
    """Six machines of two images on three hosts, one file for each host; a name has a comma. Images have 100 pages, machines 20 more."""
    names = ["a1", "b1", "a2, old", "b2", "a3", "b3"]
    machines = [
        Machine(name, f"h{number // 2}", "", 0,
                [image << 30 | page for page in range(100)] + [number + 1 << 40 | page for page in range(20)])
        for number, name in enumerate(names) for image in [1 + number % 2]
    ]  # fmt: skip
    write_fleet(tmp_path, machines)
    (tmp_path / "hosts.csv").write_text("host,capacity\nh0,300 pages\nh1,1.2 MiB\nh2,2 MiB\n")
    return tmp_path


def placed(few, *arguments):
    out, _ = invoke("fleet", "place", few, "--hosts", few / "hosts.csv", "--headroom", "0", "--json", *arguments)
    return json.loads(out)


def test_as_a_user_calls_it(few):
    out, err = invoke("fleet", "place", few, "--hosts", few / "hosts.csv", "--headroom", "0", "-o", few / "new.csv")
    assert err == ""
    assert out.startswith("Moving 4 of 6 sources would save 1.6 MiB: 2.8 MiB of memory now, 1.2 MiB then.\n")
    assert re.search(r"^Move +from +to +MiB saved$", out, re.MULTILINE)
    assert "- No placement saves more." in out
    found = placed(few)
    assert (found["before"], found["after"], found["saving"], found["bound"], found["ended"]) == (720, 320, 400, 400, "proved")
    assert sum(move["gain"] for move in found["moves"]) == 400
    [header, *rows] = csv.reader(io.StringIO((few / "new.csv").read_text()))
    assert header == ["source", "host"]
    assert dict(rows) == found["placement"]
    assert found["placement"]["h1:a2, old"] == found["placement"]["h0:a1"]
    for host in found["hosts"]:
        there = [name for name, where in found["placement"].items() if where == host["name"]]
        assert host["after"]["sources"] == there
        assert host["after"]["pages"] == 120 * len(there)
        assert host["after"]["used"] <= host["limit"] <= host["capacity"]
    # The new placement is one that can be asked of, and that KSM merges to the same.
    again = json.loads(invoke("fleet", "place", few, "--hosts", few / "hosts.csv", "--placement", few / "new.csv", "--json")[0])
    assert (again["before"], again["saving"], again["moves"]) == (320, 0, [])
    checked = json.loads(invoke("fleet", "check", few, "--placement", few / "new.csv", "--compare", "--zeros", "count", "--json")[0])
    assert (checked["ledger"]["kept"], checked["now"]["ledger"]["kept"], checked["saving"]) == (320, 720, 400)
    out, _ = invoke("fleet", "check", few, "--placement", few / "new.csv")
    assert out.startswith("KSM would free 1.6 MiB of 2.8 MiB (55.6 %) on 3 hosts.\n")
    assert re.search(r"^Host +sources +MiB +kept +freed +%$", out, re.MULTILINE)


def test_wishes(few):
    """What must not be, by options and in the file of a placement."""
    assert placed(few, "--moves", "1")["saving"] == 100
    assert len(placed(few, "--moves", "2")["moves"]) == 2
    assert placed(few, "--pin", "*")["moves"] == []
    assert placed(few, "--least", "101")["moves"] == []
    assert placed(few, "--least", "396KiB")["saving"] == 400
    apart = placed(few, "--apart", 'a1,"a2, old"')["placement"]
    assert apart["h0:a1"] != apart["h1:a2, old"]
    tenants = placed(few, "--tenant", "blue=a1,b1", "--tenants-apart")["placement"]
    blue = {tenants[name] for name in ("h0:a1", "h0:b1")}
    assert not blue & {where for name, where in tenants.items() if not name.startswith("h0:")}
    path = few / "wishes.csv"
    path.write_text('pinned,apart,tenant,host,source\nyes,x;y,,h2,a1\n,x,,h1,"a2, old"\nno,,,h1,a3\n')
    wished = placed(few, "--placement", path)["placement"]
    assert wished["h0:a1"] == "h2" != wished["h1:a2, old"]
    path.write_text("source,tenant,host\na1,blue,h0\nb1,blue,h0\n")
    tenants = placed(few, "--placement", path, "--tenants-apart")["placement"]
    assert not {tenants["h0:a1"], tenants["h0:b1"]} & {where for name, where in tenants.items() if not name.startswith("h0:")}


def test_what_fits(few):
    """After sharing, all may be on one host; before, two machines are on each, and the reserve is kept."""
    after = placed(few)
    assert len({*after["placement"].values()}) < 3
    hosts = few / "same.csv"
    hosts.write_text("host,capacity\nh0,240\nh1,240\nh2,240\nspare,120\n")
    before = json.loads(invoke("fleet", "place", few, "--hosts", hosts, "--fit", "before", "--headroom", "0", "--json")[0])
    assert before["saving"] == 200
    assert all(host["after"]["pages"] <= host["capacity"] for host in before["hosts"])
    reserve = json.loads(invoke("fleet", "place", few, "--capacity", "300", "--headroom", "30 pages", "--json")[0])
    assert all(host["after"]["used"] <= 270 for host in reserve["hosts"])
    assert [host["limit"] for host in reserve["hosts"]] == [270] * 3


@pytest.mark.parametrize("arguments, line", [
    ([], "ksm fleet place: the capacities of hosts are needed: --hosts CSV, or --capacity SIZE (ksm fleet place --help)"),
    (["--capacity", "many"], "'many' is no size: it is written 64GiB, 512MiB, or as a number of pages"),
    (["--capacity", "1.5"], "'1.5' is no size"),
    (["--capacity", "999999T"], "'999999T' is more than any host has"),
    (["--capacity", "1G", "--headroom", "101%"], "'101%' is more than a host has"),
    (["--capacity", "1G", "--headroom", "x"], "'x' is no headroom: it is written 10%, 4GiB, or as a number of pages"),
    (["--capacity", "1G", "--apart", 'a1,"b'], "names are divided by commas"),
    (["--capacity", "1G", "--moves", "-1"], "-1 is not in the range"),
    (["--capacity", "1G", "--seconds", "nan"], "nan is not in the range"),
])  # fmt: skip
def test_wrong_usage(few, arguments, line):
    assert line in refused("fleet", "place", few, *arguments, code=2)


@pytest.mark.parametrize("arguments, line", [
    (["--apart", "a1"], "ksm: --apart a1: two sources at least are needed"),
    (["--apart", "a1,c9"], "ksm: --apart: no source 'c9' in the fleet"),
    (["--pin", "c9"], "ksm: --pin: no source 'c9' in the fleet"),
    (["--tenant", "blue=c9"], "ksm: tenant blue: no source 'c9' in the fleet"),
    (["--apart", "*", "--apart", "a1,b1"], "ksm: no placement was found that is as asked for: now, h0:a1 and h0:b1 are both on h0"),
    (["--apart", "a1,b1", "--moves", "0"],
     "ksm: no placement was found with 0 moves that is as asked for: now, h0:a1 and h0:b1 are both on h0"),
    (["-o", "/no/such/folder/new.csv"], "ksm: /no/such/folder/new.csv cannot be written: No such file or directory"),
])  # fmt: skip
def test_what_is_refused(few, arguments, line):
    assert refused("fleet", "place", few, "--hosts", few / "hosts.csv", *arguments) == line


@pytest.mark.parametrize("text, line", [
    ("", "no column 'host': its first line has to name host, capacity"),
    ("host,size\nh0,1G\n", "no column 'capacity': its first line has to name host, capacity"),
    ("host,capacity\nh0,1G\nh1\n", ":3: 1 values, and 2 columns"),
    ("host,capacity\nh0,1G\n,1G\n", ":3: a host without a name"),
    ("host,capacity\nh0,1G\nh0,2G\n", ":3: h0 is in PATH:2 already"),
    ("host,capacity\nh0,1G\nh1,a lot\n", ":3: 'a lot' is no size: it is written 64GiB, 512MiB, or as a number of pages"),
    ("host,capacity\nh0,-5\n", ":2: '-5' is no size: it is written 64GiB, 512MiB, or as a number of pages"),
    ("host,capacity\n", ": no host"),
    ("host,capacity\nh0,1G\nh1,1G\n", ": no host 'h2', on which h2:a3 is"),
    ("host,capacity\nh0,1G\nh1,100\nh2,1G\n", ":3: h1 has 400.0 KiB, and its sources take 960.0 KiB after sharing now"),
    ('host,capacity\n"h0,1G\n', ":2: unexpected end of data"),
    ("host,capacity\n\udcff,1G\n", "it is not UTF-8: byte 14"),
])  # fmt: skip
def test_hostile_files_of_hosts(few, text, line):
    path = few / "hosts.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    said = refused("fleet", "place", few, "--hosts", path)
    assert said.startswith(f"ksm: {path}:")
    assert said.endswith(line.replace("PATH", str(path)))


@pytest.mark.parametrize("text, line", [
    ("source\na1\n", ": no column 'host': its first line has to name source, host"),
    ("source,host\nc9,h0\n", ":2: no source 'c9' in the fleet"),
    ("source,host\na1,\n", ":2: a1 has no host"),
    ("source,host\na1,h0\na1,h1\n", ":3: h0:a1 is on h0 already"),
    ("source,host\na1,h0\na1,h0\n", ":3: a1 is in line 2 already"),
    ("source,host,pinned\na1,h0,perhaps\n", ":2: pinned is yes or no, and not 'perhaps'"),
    ("source,host\na2, old,h0\n", ":2: 3 values, and 2 columns"),
])  # fmt: skip
def test_hostile_files_of_placements(few, text, line):
    path = few / "placement.csv"
    path.write_text(text)
    assert refused("fleet", "place", few, "--capacity", "1G", "--placement", path) == f"ksm: {path}{line}"


def test_a_host_that_the_placement_names_and_nobody_knows(few):
    path = few / "placement.csv"
    path.write_text("source,host\na1,h9\n")
    line = refused("fleet", "place", few, "--hosts", few / "hosts.csv", "--placement", path)
    assert line == f"ksm: {few}/hosts.csv: no host 'h9', on which h0:a1 is"
    invoke("fleet", "place", few, "--hosts", few / "hosts.csv", "--capacity", "1M", "--placement", path)


def test_what_check_refuses(few):
    assert "--compare is for --placement" in refused("fleet", "check", few, "--compare", code=2)
    assert "100M: at least" in refused("fleet", "check", few, "--memory", "100M", code=2)
    assert "KSM has no no_such" in refused("fleet", "check", few, "--set", "no_such=1", code=2)
    assert refused("fleet", "check", few / "nothing").startswith(f"ksm: {few}/nothing: ")


def test_ctrl_c_prints_what_was_found(few, monkeypatch):
    def interrupted(problem, best, *rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(placing, "shaken", interrupted)
    monkeypatch.setattr(placing.solver, "usable", lambda problem: False)
    monkeypatch.setattr(placing, "bound_of", lambda *arguments: Bound(0, None))
    out, err = invoke("fleet", "place", few, "--hosts", few / "hosts.csv", code=130)
    assert out.startswith("Moving ")
    assert "- The search was interrupted, and may not have found much." in out
    assert err == "ksm: interrupted\n"


def test_zeros_are_one_content_of_a_host(tmp_path):
    """With pages of zeros in all machines, each host has one; where one machine has some, it is its own."""
    for number, zeros in enumerate([(5, 3, 0), (4, 0, 0), (0, 0, 0)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        machines = [Machine(f"m{place}", f"h{place}", "", 0, [0] * count + [place + 1 << 20]) for place, count in enumerate(zeros)]
        write_fleet(folder, machines)
        plan = ksm.fleet.place([str(folder)], capacity=10, headroom=0)
        assert plan.before == 3 + sum(map(bool, zeros))
        assert plan.after == 3 + any(zeros)
        assert plan.saving == plan.bound == sum(map(bool, zeros)) - any(zeros)


def test_a_sample_and_its_error(tmp_path):
    """What a sample of one content in eight says of its own placement is near what all contents say."""
    machines = [
        Machine(f"m{number}", f"h{number // 3}", "", 0, [number % 3 + 1 << 30 | page for page in range(600)] + [number + 1 << 40, 0])
        for number in range(9)
    ]  # fmt: skip
    write_fleet(tmp_path, machines)
    plan = ksm.fleet.place([str(tmp_path)], capacity="100M", sample=8)
    exact = taken(machines, [machine.host for machine in machines]) - taken(machines, list(plan.placement.values()))
    assert exact == 2 * 3 * 600 + 2
    assert 0 < plan.error < 600
    assert 0 < abs(plan.saving - exact) <= 4 * plan.error
    [bound, error, room, *_] = plan.notes()
    assert bound.startswith("By the sample, no placement saves more")
    assert "standard error" in error
    # Of 8 * c contents the error is sqrt(8 * c * 7); there are 602 to 1,803 on the fullest host, give or take
    assert (needs := re.search(r"fullest host has a standard error of ([0-9.]+) KiB: it may not fit", room))
    assert 0.7 * 4 * math.sqrt(602 * 7) < float(needs[1]) < 1.3 * 4 * math.sqrt(1803 * 7)
    assert plan.json()["sample"] == 8
    before = ksm.fleet.place([str(tmp_path)], capacity="100M", sample=8, fit="before").notes()
    assert not any("fullest" in note for note in before)


def test_a_large_fleet_is_sampled(few, monkeypatch):
    """More pages than are looked at if nobody says: one of as many contents as are too many."""
    assert placed(few)["sample"] == 1
    monkeypatch.setattr(question, "MOST_PAGES", 300)  # of 720
    assert placed(few)["sample"] == 3
    assert placed(few, "--sample", "1/1")["sample"] == 1
    assert ksm.fleet.place([str(few)], capacity=1000).sample == 3


def test_the_function(few):
    plan = ksm.fleet.place([str(few)], hosts={"h0": 300, "h1": "1.2MiB", "h2": "2M"}, headroom="0%", pinned=["a1"], apart=[["b1", "b2"]])
    assert plan.placement["h0:a1"] == "h0"
    assert plan.placement["h0:b1"] != plan.placement["h1:b2"]
    assert repr(plan).startswith("<ksm fleet plan: Moving ")
    assert str(plan) == plan.text()
    assert plan.json()["placement"] == plan.placement
    (few / "new.csv").write_text(plan.csv())
    found = ksm.fleet.check([str(few)], placement=str(few / "new.csv"), compare=True, zeros="count")
    assert (found.ledger.kept, found.saving) == (plan.after, plan.saving)
    assert repr(found).startswith("<ksm fleet check: KSM would free ")
    for wrong in ({"fit": "never"}, {"moves": -1}, {"seconds": -1}, {"capacity": "x"}, {"headroom": "x"}, {"hosts": None}, {"sample": 0}):
        with pytest.raises(ValueError):
            ksm.fleet.place([str(few)], **{"hosts": {"h0": 300}, **wrong})
    with pytest.raises(TypeError):
        ksm.fleet.place([str(few)], capacity=300, apart=["b1,b2"])
    with pytest.raises(OSError, match="hosts: no host 'h1', on which h1:a2, old is"):
        ksm.fleet.place([str(few)], hosts={"h0": 300})
    with pytest.raises(ValueError):
        ksm.fleet.check([str(few)], settings={"no_such": 1})
    with pytest.raises(ValueError):
        ksm.fleet.check([str(few)], compare=True)


def test_words():
    assert [pages_of(text) for text in ("7", "7 pages", "1 page", "8K", "8KiB", "1.5M", "2 GiB", "1T")] == [
        7, 7, 1, 2, 2, 384, 1 << 19, 1 << 28
    ]  # fmt: skip
    for text in ("", "G", "1GB", "1e3", "0x10", "-1", "1 2", "1.5 pages", "1k"):
        with pytest.raises(ValueError):
            pages_of(text)
    assert headroom_of("25%").limit(1000) == 750
    assert headroom_of("4KiB").limit(1000) == 999
    assert headroom_of("4G").limit(1000) == 0
    assert split_names('a, "b, c",d') == ["a", "b, c", "d"]


def test_one_host_and_one_source(tmp_path):
    write_file(tmp_path / "h.parquet", "h", [Machine("m", "h", "", 0, [1, 1, 2])])
    plan = ksm.fleet.place([str(tmp_path)], capacity=10)
    assert (plan.before, plan.saving, plan.bound, plan.steps) == (2, 0, 0, [])
    assert plan.answer == "No placement was found that takes less than the 8.0 KiB of now."
