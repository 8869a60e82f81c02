# SPDX-License-Identifier: GPL-2.0-only
"""What each further machine would add: what one of these has added."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksm.estimate import report, scan
from ksm.estimate.ledger import SIZES
from ksm.estimate.project import Projection, Share, project
from ksm.sources import open_file

from .test_scan import PAGE, write_image


def run(paths, **options):
    sources = [open_file(path) for path in paths]
    try:
        with scan.Scan(sources, **options) as running:
            return running.run()
    finally:
        for source in sources:
            source.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=60), min_size=2, max_size=4), st.sampled_from(["0", "1"]))
def test_what_each_source_has_added(tmp_path, images, zero_pages):
    """The frames that a scan finds, less those that one without this source finds."""
    paths = [write_image(tmp_path / f"image{place}", image) for place, image in enumerate(images)]
    options = {"settings": {"use_zero_pages": zero_pages}}
    result = run(paths, project=3, **options)
    added = [result.ledger.kept - run([other for other in paths if other != path], **options).ledger.kept for path in paths]
    found = result.projection
    assert (found.machines, found.least, found.most, found.own) == (3, min(added), max(added), round(sum(added) / len(added)))
    assert found.shared + found.own == found.pages == round(sum(map(len, images)) / len(images))


def test_machines_that_have_an_image_in_common(tmp_path):
    """A scan of more of them finds what was said."""
    def guest(number):
        return write_image(tmp_path / f"guest{number}", [*range(1, 401), *([500 + number] * 3), *range(1000 * number, 1000 * number + 200)])

    few, many = [guest(number) for number in range(1, 4)], [guest(number) for number in range(1, 11)]
    before = run(few, project=7)
    after = run(many)
    said = before.projection
    assert said == Projection(7, 603, 402, 201, 201, 201, 603 * 64 + 64 + 48)
    assert after.ledger.kept == before.ledger.kept + 7 * said.own
    assert after.ledger.metadata == before.ledger.metadata + 7 * said.metadata
    [note] = report.further(before)
    assert note == (
        "each further one like these has 2.4 MiB: 1.6 MiB shared, 804.0 KiB its own (804.0 KiB to 804.0 KiB), and 37.8 KiB of metadata; "
        "7 more need 5.8 MiB"
    )
    assert report.as_json(before)["projection"]["own"] == 201
    assert "projection" not in report.as_json(after)


def test_one_source_says_nothing(tmp_path):
    one = write_image(tmp_path / "image", [1, 1])
    result = run([one], project=3)
    assert result.projection is None
    said = "nothing can be said of further machines (--project): there is one source left, and it takes two"
    assert said in result.notes
    assert said not in run([one]).notes
    with pytest.raises(ValueError, match="two sources at least"):
        project([Share(1, 1, 0)], 1, SIZES["6.12"])
    assert PAGE == 4096
