# SPDX-License-Identifier: GPL-2.0-only
"""docs/fleet-example.md: its commands run, and lead to what it says. With guests: tests/truth/test_fleet.py."""

import contextlib
import io
import os
import random
import re
import shutil
import signal
import subprocess

import example
import pytest
from commands import invoke

pytest.importorskip("numpy")
pytestmark = pytest.mark.once


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed (Debian: redis-server)")
def test_the_commands_of_the_page(tmp_path):
    environment = example.programs(tmp_path)
    with subprocess.Popen(
        ["bash", "-c", example.script(guests=False)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            output = ""
            for line in shell.stdout:
                output += line
                if line.startswith("- Fingerprints are of one moment"):
                    break
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
    example.check_what_is_left(tmp_path, output, guests=0)


def test_the_python_of_placing(tmp_path, monkeypatch):
    """The example of docs/fleet-place.md, over two machines with pages in common."""
    chance = random.Random(1)
    contents = [chance.randbytes(4096) for _ in range(64)]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet").mkdir()
    for number in (1, 2, 3):
        (tmp_path / f"vm{number}.img").write_bytes(b"".join(contents))
        invoke("fingerprint", f"vm{number}.img", "--host", f"rack{number}", "-o", f"fleet/rack{number}.parquet")
    [code] = re.findall(r"^```python\n(.*?)^```", (example.PAGE.parent / "fleet-place.md").read_text(), re.MULTILINE | re.DOTALL)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "fleet-place.md", "exec"), {})
    first, *placed, last = output.getvalue().splitlines()
    assert first == "Moving 1 of 3 sources would save 256.0 KiB: 768.0 KiB of memory now, 512.0 KiB then."
    assert len(placed) == 3
    assert last == "64 pages are freed more than now"
