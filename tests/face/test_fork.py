# SPDX-License-Identifier: GPL-2.0-only
"""A fork of the interpreter: the child has a copy of the machine's memory and none of its threads. The child may close the machine, drop
it, and exit; any other call says whose machine it is. Machines that the child makes itself work."""

import pytest

import ksm

PAGE = ksm.PAGE_SIZE

MACHINE = """
    machine = ksm.Machine("64M", swap="1M", plain=True)
    process, addr = mergeable(machine, 256)
    machine.ksm.sleep_millisecs = 0
    machine.ksm.run = 1
    while machine.ksm.full_scans < 1:
        time.sleep(0.001)
    machine.ksm.sleep_millisecs = 100000

    def ended(pid):
        until = time.monotonic() + 15
        while time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return "stuck"
"""
ENDS = {
    "falls off the end": "sys.exit(0)",
    "closes": "machine.close(); machine.close(); assert machine.closed; sys.exit(0)",
    "forgets": "del machine, process; gc.collect(); sys.exit(0)",
    "leaves a with statement": "machine.__exit__(None, None, None); sys.exit(0)",
    "has a view": "view = memoryview(b''); sys.exit(0)",
    "leaves at once": "os._exit(0)",
    "forks again": "sys.exit(ended(os.fork() or os.execlp('true', 'true')))",
    "forks again, and that one closes": "pid = os.fork(); machine.close(); sys.exit(ended(pid) if pid else 0)",
}


@pytest.mark.parametrize("ksmd", ["sleeps", "waits", "works"])
@pytest.mark.parametrize("how", ENDS)
def test_a_child_ends(alone, how, ksmd):
    out = alone(MACHINE + f"""
    machine.ksm.sleep_millisecs = {0 if ksmd == "works" else 100000}
    if {ksmd == "waits"}:
        machine.ksm.run = 0
        machine.ksm.sleep_millisecs = 1
    time.sleep(0.05)
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            {ENDS[how]}
        assert ended(pid) == 0
    assert process.read(addr, 8) == b"00000000"
    machine.ksm.run = 0
    print(machine.check())
    machine.close()
    """)
    assert out == "[]\n"


def test_a_child_cannot_use_the_machine(alone):
    """Every call of the child is refused, whichever thread was inside the machine at the time of the fork."""
    out = alone(MACHINE + """
    stop = False
    machine.ksm.sleep_millisecs = 0
    def work():
        while not stop:
            process.write(addr, b"x" * 64 * PAGE)
            machine.ksm.scan()
            process.fork().exit()
            machine.check()
    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    knobs, trace, recording, view = machine.ksm, machine.ksm.trace, machine.record(), memoryview(machine)
    calls = [
        machine.spawn, machine.free_pages, machine.vmstat, machine.check, machine.time, machine.slabinfo, machine.swapoff,
        lambda: machine.migrate(5), lambda: machine.fail("page"), lambda: memoryview(machine), machine.record, lambda: machine.plain,
        lambda: machine.frame(5), lambda: machine.era, lambda: knobs.run, lambda: setattr(knobs, "run", 0), knobs.scan, knobs.names,
        trace.read, lambda: len(trace), trace.start,
        process.maps, process.smaps, process.fork, process.exec, process.exit, process.rss, lambda: process.mm_id, process.ksm_stat,
        lambda: process.read(addr, 1), lambda: process.write(addr, b"x"), lambda: process.mmap(PAGE),
        lambda: process.page_table(addr, PAGE), lambda: recording.note("x"), recording.stop, lambda: machine.__init__("1M"),
    ]
    parent = os.getpid()
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            for call in calls:
                try:
                    call()
                except RuntimeError as error:
                    assert call is calls[-1] or str(error) == f"the machine belongs to process {parent}", error
                else:
                    os._exit(2)
            repr(machine), repr(process), repr(knobs), process.name, machine.closed, len(machine.processes)
            try:
                machine.close()
            except BufferError:
                view.release()
                machine.close()
            os._exit(0 if machine.closed and not process.alive else 3)
        code = ended(pid)
        assert code == 0, code
    stop = True
    for thread in threads:
        thread.join()
    view.release()
    machine.close()
    print("done")
    """)
    assert out == "done\n"


@pytest.mark.parametrize(("module", "call"), [("ksm.check", "machine.check"), ("ksm.record", "machine.record")])
def test_a_child_of_a_program_that_was_importing(alone, module, call):
    """The thread that holds the lock of a module is not there any more: the child is refused before it waits for that."""
    out = alone(MACHINE + f"""
    begun = threading.Event()
    class Slow:
        def find_spec(self, name, path=None, target=None):
            if name == "{module}":
                begun.set()
                time.sleep(3)
    for name in [name for name in sys.modules if name.startswith("{module}")]:
        del sys.modules[name]
    sys.meta_path.insert(0, Slow())
    thread = threading.Thread(target={call})
    thread.start()
    begun.wait()
    pid = os.fork()
    if pid == 0:
        try:
            {call}()
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    print(ended(pid))
    thread.join()
    """)
    assert out == "0\n"


def test_a_child_reads_its_copy_in_a_view(alone):
    out = alone(MACHINE + """
    view = memoryview(machine)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if len(bytes(view[:1 << 20])) == 1 << 20 else 1)
    print(ended(pid))
    view.release()
    """)
    assert out == "0\n"


def test_machines_made_in_a_child(alone):
    out = alone(MACHINE + """
    pid = os.fork()
    if pid == 0:
        with ksm.Machine("64M", swap="1M") as mine:
            a, addr = mergeable(mine, 64, "same")
            mine.ksm.run = 1
            while mine.ksm.pages_sharing < 63:
                time.sleep(0.001)
            assert a.read(addr, 4) == b"same" and mine.check() == []
            grandchild = os.fork()
            if grandchild == 0:
                try:
                    mine.free_pages()
                except RuntimeError:
                    sys.exit(0)
                os._exit(1)
            assert ended(grandchild) == 0
            assert mine.check() == []
        sys.exit(0)
    print(ended(pid))
    machine.close()
    """)
    assert out == "0\n"


def test_forks_while_a_machine_is_closed(alone):
    """Another thread is closing a machine, or making one, at the time of the fork: the child still ends."""
    out = alone("""
    stop = False
    def work():
        while not stop:
            machine = ksm.Machine("8M", swap="64K")
            mergeable(machine, 64)
            machine.ksm.run = 1
            machine.close()
    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            gc.collect()
            with ksm.Machine("1M", max_memory="1M") as machine:
                assert machine.free_pages() == 255
            os._exit(0)
        until = time.monotonic() + 15
        while time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.002)
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status = -1
        codes.append(status)
    stop = True
    for thread in threads:
        thread.join()
    print(set(codes))
    """)
    assert out == "{0}\n"


def test_subprocesses(alone):
    out = alone(MACHINE + """
    import subprocess
    for extra in ({}, {"preexec_fn": lambda: None}, {"preexec_fn": machine.close}, {"preexec_fn": gc.collect}):
        subprocess.run(["true"], check=True, timeout=15, **extra)
    print(process.read(addr, 8), machine.closed)
    machine.close()
    """)
    assert out == "b'00000000' False\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(alone, tmp_path, method):
    (tmp_path / "work_of_a_child.py").write_text("""
import ksm

def work(value):
    with ksm.Machine("1M", max_memory="1M") as machine:
        return machine.free_pages() + value
""")
    out = alone(MACHINE + f"""
    import multiprocessing
    sys.path.insert(0, {str(tmp_path)!r})
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    from work_of_a_child import work
    context = multiprocessing.get_context({method!r})
    child = context.Process(target=work, args=(1,))
    child.start()
    child.join(15)
    print(child.exitcode)
    if child.exitcode is None:
        child.kill()
    with context.Pool(1) as pool:
        print(pool.apply_async(work, (5,)).get(15))
    machine.close()
    """)
    assert out == "0\n260\n"
