# SPDX-License-Identifier: GPL-2.0-only
"""What the tests beside it stand on. No kernel with KSM is needed."""

import os
import shutil
import subprocess

from running import Programs, at_rest


def test_any_name_of_any_process(tmp_path):
    """A name may have each byte but 0: programs are found, and end, whatever others are called."""
    path = os.fsencode(tmp_path) + b"/R\nO)\xff"
    os.symlink(shutil.which("sleep"), path)
    with subprocess.Popen([path, "100"]) as other, Programs() as programs:
        try:
            child = programs.start("sh", "-c", "sleep 100 & wait", mergeable=False)
            while len(programs.pids()) < 2:
                pass
            at_rest([*programs.pids(), other.pid], 0.2)
            assert child.pid in programs.pids() and other.pid not in programs.pids()
        finally:
            other.kill()
    assert programs.pids() == []
