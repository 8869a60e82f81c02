# SPDX-License-Identifier: GPL-2.0-only
"""What ksm fleet check says of a host is what ksm scan says of the same sources on one machine."""

import random

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")

from made import Machine, write_file, write_fleet

from ksm.estimate.scan import Scan
from ksm.fleet import checking
from ksm.fleet.checking import Budget, check_fleet, placed
from ksm.fleet.files import FleetError, open_fleet
from ksm.sources import Host, open_sources

pytestmark = pytest.mark.once


def machines(hosts=3, each=4, pages=400, seed=1):
    """Machines with zeros, contents in common, and contents that are there more often than max_page_sharing."""
    chance = random.Random(seed)
    common = [1 << 30 | chance.randrange(1 << 29) for _ in range(300)]
    found = []
    for number in range(hosts * each):
        contents = [chance.choice([0, chance.choice(common), number << 40 | chance.randrange(1, 200), 7]) for _ in range(pages)]
        host = f"h{number % hosts}"
        found.append(Machine(f"vm{number}", host, host, 0, contents))
    return found


@pytest.fixture(scope="module")
def fleet_of(tmp_path_factory):
    """A fleet of machines, and for any of them a file with nothing else in it."""
    folder = tmp_path_factory.mktemp("fleet")
    some = machines()
    for machine in some:
        (folder / "single").mkdir(exist_ok=True)
        write_file(folder / "single" / f"{machine.name}.parquet", machine.host, [machine])
    return open_fleet(write_fleet(folder, some)), {machine.name: str(folder / "single" / f"{machine.name}.parquet") for machine in some}


def scanned(files, **options):
    """What ksm scan does of these files."""
    host = Host()
    sources, _ = open_sources(files, host)
    try:
        with Scan(sources, zeros="apart", **options) as running:
            return running.run()
    finally:
        for source in sources:
            source.close()
        host.close()


def same(checked, scan):
    """All figures of a host, but the names of sources."""
    assert checked.ledger == scan.ledger
    assert checked.ksm == scan.ksm
    assert (checked.savings, checked.passes, checked.settled) == (scan.savings, scan.passes, scan.settled)
    assert [source[1:] for source in checked.sources] == [source[1:] for source in scan.sources]


@pytest.mark.parametrize("settings", [{}, {"max_page_sharing": "4"}, {"use_zero_pages": "1", "smart_scan": "0"}])
def test_each_host_is_what_ksm_scan_says(fleet_of, settings):
    fleet, single = fleet_of
    found = check_fleet(fleet, settings=settings)
    assert [host.name for host in found.hosts] == ["h0", "h1", "h2"]
    for host in found.hosts:
        assert host.result.ledger.freed > 0
        same(host.result, scanned([single[name.partition(":")[2]] for name in host.sources], settings=settings))


def test_the_sources_of_a_new_placement(fleet_of, tmp_path):
    """Sources of several files meet on one host; one host is left empty, one is new."""
    fleet, single = fleet_of
    chance = random.Random(2)
    hosts = {member.name: chance.choice(["h0", "h1", "new, one"]) for member in fleet.members}
    path = tmp_path / "new.csv"
    path.write_text("source,host\n" + "".join(f'"{name}","{host}"\n' for name, host in hosts.items()))
    found = check_fleet(fleet, placed(fleet, str(path)), compare=True, era="6.1")
    assert {host.name: len(host.sources) for host in found.hosts if not host.sources} == {"h2": 0}
    assert sorted(name for host in found.hosts for name in host.sources) == sorted(hosts)
    for host in found.hosts:
        assert all(hosts[name] == host.name for name in host.sources)
        if host.sources:
            same(host.result, scanned([single[name.partition(":")[2]] for name in host.sources], era="6.1"))
    assert found.now == [*check_fleet(fleet, era="6.1").hosts, ("new, one", [], None)]
    assert found.saving == found.ledger.freed - sum(host.ledger.freed for host in found.now)
    assert found.ledger.pages == sum(host.ledger.pages for host in found.now)
    assert found.json()["saving"] == found.saving
    assert "where the sources are now" in found.text(60)


def test_what_ksm_does_and_not_what_a_set_would(tmp_path):
    """max_page_sharing: 600 equal pages on a host need three frames with the default of 256, and not one."""
    files = write_fleet(tmp_path, [Machine(f"vm{number}", "h", "h", 0, [5] * 200) for number in range(3)])
    found = check_fleet(open_fleet(files))
    assert (found.ledger.pages, found.ledger.kept) == (600, 3)
    assert found.hosts[0].result.ksm["stable_node_dups"] == 3


def test_memory_and_threads_change_nothing(fleet_of):
    fleet, _ = fleet_of
    whole = check_fleet(fleet, threads=4)
    one = max(checking.needed([member for member in fleet.members if member.host == host]) for host in fleet.hosts)
    assert check_fleet(fleet, threads=4, memory=one) == whole == check_fleet(fleet, threads=1)
    with pytest.raises(FleetError, match=r"h0: not enough memory: it needs .* and .* are allowed \(--memory\)"):
        check_fleet(fleet, memory=one - 1)


def test_no_more_hosts_at_once_than_fit(fleet_of, monkeypatch):
    fleet, _ = fleet_of
    running, most = [], []

    class Counted(Budget):
        def taking(self, count):
            taking = super().taking(count)

            class Within:
                def __enter__(self):
                    taking.__enter__()
                    running.append(1)
                    most.append(len(running))

                def __exit__(self, *error):
                    running.pop()
                    return taking.__exit__(*error)

            return Within()

    monkeypatch.setattr(checking, "Budget", Counted)
    one = max(checking.needed([member for member in fleet.members if member.host == host]) for host in fleet.hosts)
    check_fleet(fleet, threads=3, memory=2 * one)
    assert len(most) == 3
    assert max(most) <= 2


def test_a_file_that_breaks_ends_all(tmp_path):
    """The rows of the second source are damaged: one line says so, and no machine goes on."""
    paths = write_fleet(tmp_path, machines(hosts=2, each=2))
    fleet = open_fleet(paths)
    data = bytearray((tmp_path / "h1.parquet").read_bytes())
    data[len(data) // 3 : len(data) // 3 + 200] = bytes(200)
    (tmp_path / "h1.parquet").write_bytes(data)
    with pytest.raises(FleetError, match=r"h1\.parquet.*damaged"):
        check_fleet(fleet)


def test_a_fleet_without_pages(tmp_path):
    write_file(tmp_path / "h.parquet", "h", [Machine("empty", "h", "h", 0, [])])
    found = check_fleet(open_fleet([str(tmp_path)]))
    assert (found.ledger.pages, found.hosts[0].result) == (0, None)
    assert found.text().startswith("There are no pages that KSM could merge.")


def test_a_key_needs_not_be_there(tmp_path):
    """Files of one key are compared without it."""
    plain = check_fleet(open_fleet(write_fleet(tmp_path, machines())))
    (tmp_path / "keyed").mkdir()
    keyed = check_fleet(open_fleet(write_fleet(tmp_path / "keyed", machines(), key="12345678")))
    assert [host.ledger for host in keyed.hosts] == [host.ledger for host in plain.hosts]
