# SPDX-License-Identifier: GPL-2.0-only
"""Which era is taken for a kernel."""

import json

import pytest
from click.testing import CliRunner

from ksm.cli.group import main
from ksm.constants import PAGE_SIZE
from ksm.estimate import eras
from ksm.estimate.eras import era_note, nearest_era


@pytest.mark.parametrize("release, era, exact", [
    ("7.3.4+deb13-cloud-amd64", "7.3", False), ("8.0", "7.3", False), ("7.2.12", "6.12", True), ("6.18.44", "6.12", True),
    ("6.12.117+deb12-cloud-amd64", "6.12", True), ("6.11.0-1015-azure", "6.12", True), ("6.8.0-31-generic", "6.12", False),
    ("6.5.13", "6.1", False), ("6.1.0-56-cloud-amd64", "6.1", False), ("5.15.0-100-generic", "6.1", False),
    ("5.14.0-427.el9.x86_64", "6.1", False), ("3.10.0", "6.1", False), ("3.2.0", "2.6.38", False), ("2.6.32", "2.6.38", False),
    ("", "6.12", False), ("none", "6.12", False),
])  # fmt: skip
def test_the_nearest_era(release, era, exact):
    assert nearest_era(release) == era
    assert len(era_note(era, release)) == (0 if exact else 1)


@pytest.mark.parametrize("release, era", [("7.3.4", "7.3"), ("6.18.1", "6.12"), ("6.1.2", "6.1")])
def test_a_scan_takes_the_era_of_the_running_kernel(release, era, monkeypatch, tmp_path):
    monkeypatch.setattr(eras, "running_release", lambda: release)
    monkeypatch.setattr(eras, "RUNNING", str(tmp_path))
    image = tmp_path / "image"
    image.write_bytes(b"a" * 2 * PAGE_SIZE)

    def scan(*arguments):
        result = CliRunner().invoke(main, ["scan", "--json", *arguments, str(image)], prog_name="ksm", catch_exceptions=False)
        report = json.loads(result.stdout)
        return report["era"], [note for note in report["notes"] if "the nearest to the KSM of this computer's" in note]

    said = f"the era is {era}, the nearest to the KSM of this computer's Linux {release} (--era takes another one)"
    assert scan() == (era, [] if era == "6.12" else [said])
    assert scan("--era", "6.12") == ("6.12", [])
    (tmp_path / "smart_scan").touch()       # a distribution has taken it over
    assert scan()[0] == ("6.12" if era == "6.1" else era)
