# SPDX-License-Identifier: GPL-2.0-only
"""What ksm scan says of QEMU's guests is what the running kernel then does. pytest -s prints both."""

import guests
import pytest
from columns import compare
from running import Programs, predicted

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("how, use_zero_pages", [
    pytest.param("prctl", 0, marks=pytest.mark.slow), ("prctl", 1), ("advised", 0), pytest.param("advised", 1, marks=pytest.mark.slow),
])  # fmt: skip
def test_two_guests(how, use_zero_pages, running, program, lacks, tmp_path):
    qemu = program("qemu-system-x86_64", "qemu-system-x86 seabios")
    busybox = program("busybox", "busybox-static")
    if not guests.static(busybox):
        lacks("busybox needs libraries (Debian: busybox-static)")
    image = guests.kernel()
    if image is None:
        lacks("there is no kernel for a guest: KSM_GUEST_KERNEL names one (Debian: linux-image-cloud-amd64, unpacked)")
    options = ["--advised"] if how == "advised" else []
    with running(use_zero_pages=use_zero_pages) as kernel, Programs() as programs:
        pids = guests.two_guests(programs, qemu, busybox, image, tmp_path, prctl=how == "prctl", advised=how == "advised")
        report = predicted(pids, *options)
        assert compare(f"two guests, by {how}, use_zero_pages={use_zero_pages}", report, kernel.merge(pids)) == []
