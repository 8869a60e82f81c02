# SPDX-License-Identifier: GPL-2.0-only
"""Programs that may crash or hang: each runs in an interpreter of its own, for a limited time."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import faulthandler, gc, os, signal, sys, threading, time
import ksm
faulthandler.enable()
PAGE = ksm.PAGE_SIZE

def mergeable(machine, pages, content="{:08d}"):
    process = machine.spawn()
    addr = process.mmap(pages * PAGE)
    process.write(addr, b"".join(content.format(i).encode().ljust(PAGE, b".") for i in range(pages)))
    process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
    return process, addr
"""


@pytest.fixture
def alone():
    """Run a program, with PRELUDE before it: what it prints. Fails if the program fails, crashes, or has not ended after `timeout` s."""

    def run(program, timeout=30):
        # Newer Pythons warn of every fork of a program with threads.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + textwrap.dedent(program)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            pytest.fail(f"stuck after: {out}{err}")
        assert child.returncode == 0, f"{child.returncode}: {out}{err}"
        assert err == ""
        return out

    return run
