# SPDX-License-Identifier: GPL-2.0-only
"""Machines that were never made, are not made yet, or are closed, and their objects: each call is refused. See half_made.py."""

import subprocess
import sys
from pathlib import Path

import pytest

import ksm
from ksm.record.recorder import Recorder
from ksm.record.recording import Recording

PAGE = ksm.PAGE_SIZE


def test_everything_is_refused():
    run = subprocess.run([sys.executable, "-X", "faulthandler", Path(__file__).with_name("half_made.py")], capture_output=True, text=True,
                         timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


class Sloppy(ksm.Machine):
    """A machine whose __init__() does not call that of Machine."""

    def __init__(self, *arguments):
        self.arguments = arguments


def test_a_subclass_that_does_not_make_its_machine():
    machine = Sloppy("1M")
    for name in ("free_pages", "spawn", "check", "vmstat"):
        with pytest.raises(ValueError, match="not made"):
            getattr(machine, name)()
    with pytest.raises(ValueError, match="not made"):
        machine.ksm.scan()
    assert not machine.closed
    machine.close()
    assert machine.closed


class Careful(ksm.Machine):
    def __init__(self, pages):
        super().__init__(pages * PAGE, max_memory=pages * PAGE)
        self.process = self.spawn()

    def close(self):
        self.process.exit()
        super().close()


def test_a_subclass_that_does():
    with Careful(64) as machine:
        assert machine.total_pages() == 64
        with pytest.raises(RuntimeError, match="once"):
            machine.__init__(64)
        assert machine.process.alive and machine.check() == []
    assert machine.closed and not machine.process.alive


def test_a_machine_whose_making_failed_can_be_made():
    machine = ksm.Machine.__new__(ksm.Machine)
    for bad in ({"memory": 0}, {"swap": 1}, {"swap": "64K", "memory": "1M", "max_memory": 1 << 50}):
        with pytest.raises(ValueError, match=r"memory|swap"):
            machine.__init__(**bad)
        with pytest.raises(ValueError, match="not made"):
            machine.free_pages()
    machine.__init__("1M", max_memory="1M", swap="64K")
    assert machine.free_pages() == 255 and machine.swap_pages() == (0, 16)
    machine.close()
    with pytest.raises(RuntimeError, match="once"):
        machine.__init__("1M")


def test_processes_are_not_derived():
    class Mine(ksm.Process):
        pass

    for arguments in ((), (None,), (object(),)):
        with pytest.raises(TypeError, match="spawn"):
            Mine(*arguments)
        with pytest.raises(TypeError, match="spawn"):
            Mine.__new__(Mine, *arguments)


def test_nodes_that_are_not_there():
    from ksm.process import spawn
    with ksm.Machine("1M", max_memory="1M") as machine:
        for node in (-1, 1, 63, 1 << 20):
            for call in (machine.spawn, lambda name, node, machine=machine: spawn(machine, name, node)):
                with pytest.raises(ValueError, match="no node"):
                    call(None, node)


def test_processes_are_a_view():
    with ksm.Machine("1M", max_memory="1M") as machine:
        process = machine.spawn()
        with pytest.raises(TypeError):
            machine.processes[1] = None
        with pytest.raises(AttributeError):
            machine.processes.clear()
        assert dict(machine.processes) == {process.pid: process}
        process.exit()
        assert len(machine.processes) == 0


def test_a_recorder_stops_once():
    with ksm.Machine("1M", max_memory="1M", plain=True) as machine:
        recorder = Recorder(machine, 10)
        recorder.look()
        assert recorder.stop()[0] == 1
        words = len(recorder.words)
        assert words
        assert recorder.stop()[0] == 1
        assert len(recorder.words) == words
        assert not recorder.look()


def test_recordings_that_have_not_begun():
    recording = Recording.__new__(Recording)
    recording.stop()
    for call in (recording.data, lambda: recording.note("x"), lambda: recording.save("/nowhere")):
        with pytest.raises(ValueError, match="the recording"):
            call()


def test_a_machine_that_is_closed_while_it_is_made(alone):
    out = alone("""
    sys.setswitchinterval(1e-5)
    ends = set()
    for i in range(300):
        machine = ksm.Machine.__new__(ksm.Machine)
        def close():
            for _ in range(i % 30):
                pass
            machine.close()
        thread = threading.Thread(target=close)
        thread.start()
        try:
            machine.__init__("1M", max_memory="1M")
            machine.free_pages()
            ends.add("made")
        except (ValueError, RuntimeError) as error:
            ends.add(str(error))
        thread.join()
        assert machine.closed and repr(machine) == "<ksm.Machine closed>"
    print(ends <= {"made", "a machine is made once", "the machine is closed"})
    """)
    assert out == "True\n"
