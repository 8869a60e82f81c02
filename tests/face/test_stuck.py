# SPDX-License-Identifier: GPL-2.0-only
"""Calls from within a call, by signal handlers and finalizers, and close() beside calls of other threads: no thread waits for ever.

While Python makes objects or runs code, no lock of a machine is held, and close() does not wait for the thread. gate.pyx has the rules.
"""

import pytest

SCAN = """
    machine = ksm.Machine("256M", swap="4M", clock="manual")
    process, addr = mergeable(machine, 2048)
    other, there = mergeable(machine, 64)
    said = []
    def handler(*_):
        try:
            said.append(call())
        except Exception as error:
            said.append(error)
    signal.signal(signal.SIGALRM, handler)
"""


def test_close_in_a_signal_handler_ends_the_scan(alone):
    out = alone(SCAN + """
    call = machine.close
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        machine.ksm.scan(1 << 60)
    except ValueError as error:
        print(error, said, machine.closed, other.alive)
    """)
    assert out == "the machine is closed [None] True False\n"


@pytest.mark.parametrize("call", [
    "other.write(there, b'x')", "other.read(there, 8192)", "other.fork().exit()", "machine.ksm.scan()", "setattr(machine.ksm, 'run', 2)",
    "setattr(machine.ksm, 'run', 1)", "machine.check()", "other.exec()", "other.smaps()", "machine.vmstat()", "other.swap_out(there, 4096)",
    "machine.swapoff()", "machine.offline(1024, 512)", "machine.advance(1)", "machine.spawn().mmap(4096)", "machine.ksm.trace.start()",
    "other.exit()", "memoryview(machine).release()", "machine.ksm.attributes()", "setattr(machine.ksm, 'merge_across_nodes', 1)",
])
def test_any_call_in_a_signal_handler_during_a_scan(alone, call):
    out = alone(SCAN + f"""
    call = lambda: {call}
    count = 0
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.02)
    until = time.monotonic() + 10
    while len(said) < 3 and time.monotonic() < until:
        machine.ksm.scan(1000)
    signal.setitimer(signal.ITIMER_REAL, 0)
    machine.ksm.run = 0
    print(machine.check(), len(said) >= 3)
    machine.close()
    """)
    assert out == "[] True\n"


def test_any_call_in_a_signal_handler_during_a_long_batch(alone):
    out = alone(SCAN + """
    call = lambda: other.write(there, b"x")
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    until = time.monotonic() + 10
    while len(said) < 3 and time.monotonic() < until:
        machine.ksm.scan(pages=0xffffffff)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(machine.check(), len(said) >= 3)
    machine.close()
    """)
    assert out == "[] True\n"


FINALIZERS = """
    machine = ksm.Machine("64M", swap="1M", plain=True)
    process, addr = mergeable(machine, 64)
    for i in range(200):
        place = process.mmap(PAGE, prot=ksm.PROT_READ if i % 2 else ksm.PROT_READ | ksm.PROT_WRITE)
    machine.ksm.trace.start()
    machine.ksm.scan(2)
    recorder = machine.record()
    calls = []

    class Cyclic:
        def __init__(self):
            self.itself = self
        def __del__(self):
            if live:
                calls.append(1)
                action()

    live = True
    gc.disable()
"""
ACTION = {
    "call": """
    def action():
        process.munmap(process.mmap(PAGE), PAGE)
        machine.ksm.scan(pages=1)
        machine.check()
    """,
    "close": """
    def action():
        machine.close()
    """,
}
MAKERS = [
    "process.maps()", "process.smaps()", "machine.vmstat()", "machine.slabinfo()", "process.ksm_stat()", "machine.ksm.names()",
    "machine.ksm.attributes()", "machine.check()", "machine.ksm.trace.read()", "recorder.stop()", "process.page_table(addr, 64 * PAGE)",
    "process.fork()", "machine.spawn()", "process.read(addr, PAGE)", "machine.swap_pages()", "repr(machine)", "repr(machine.ksm)",
    "process.exec()", "machine.fail('page', 0)", "machine.memory_failure(process.page_table(addr, PAGE)[0] >> 8)",
    "machine.migrate(process.page_table(addr + 5 * PAGE, PAGE)[0] >> 8)", "process.move_pages(addr, PAGE, 0)",
    "process.present(addr, PAGE)", "machine.ksm.show('run')", "machine.ksm.store('run', '0')", "dir(machine.ksm)", "machine.time()",
    "recorder.note('x')",
]


@pytest.mark.parametrize("action", ACTION)
def test_finalizers_that_use_the_machine(alone, action):
    """Finalizers run wherever an object is made: here when the call makes its first object, its second, ..."""
    out = alone(FINALIZERS + ACTION[action] + f"""
    makers = {MAKERS!r}
    for maker in makers:
        print(maker, flush=True)
        code = compile(maker, "maker", "eval")
        for nth in [*range(1, 20), *range(20, 200, 20)]:
            if machine.closed:
                {"; ".join(line.strip() for line in FINALIZERS.splitlines()[1:3])}
                machine.ksm.trace.start()
                machine.ksm.scan(2)
                recorder = machine.record()
            gc.collect()
            Cyclic()
            gc.set_threshold(nth)
            gc.enable()
            try:
                eval(code)
            except (ValueError, OSError):       # closed, exited, or what the kernel says
                pass
            gc.disable()
    live = False
    print(len(calls) > 10 * len(makers), machine.closed or machine.check())
    """)
    assert out.splitlines()[-1] in ("True []", "True True")


def test_close_beside_a_long_scan(alone):
    out = alone("""
    machine = ksm.Machine("256M")
    process, addr = mergeable(machine, 4096)
    said = []
    def scan(how):
        try:
            machine.ksm.scan(**how)
        except ValueError as error:
            said.append(str(error))
    threads = [threading.Thread(target=scan, args=(how,)) for how in ({"passes": 1 << 60}, {"passes": 1 << 60})]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    machine.close()
    took = time.monotonic() - began
    for thread in threads:
        thread.join()
    print(took < 5, said)
    """)
    assert out == "True ['the machine is closed', 'the machine is closed']\n"


@pytest.mark.parametrize("call", ["touch(addr, length, write=False)", "swap_out(addr, length)"])
def test_close_and_signals_in_a_call_over_a_huge_range(alone, call):
    """Such a call goes in rounds of 256 MiB: between two it leaves the machine."""
    out = alone(f"""
    length = 1 << 42
    for _ in range(2):
        machine = ksm.Machine("64M", swap="1M")
        process = machine.spawn()
        addr = process.mmap(length)
        for part in range(0, length, length // 512):
            process.touch(addr + part)          # a table of each kind in each part
        said = []
        def go():
            try:
                while True:
                    process.{call}
            except (ValueError, OSError) as error:
                said.append(str(error))
        thread = threading.Thread(target=go)
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        machine.close()
        thread.join()
        print(time.monotonic() - began < 5, said)
    machine = ksm.Machine("64M", swap="1M")
    process = machine.spawn()
    addr = process.mmap(length)
    def late(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.monotonic()
    try:
        while True:
            process.{call}
    except KeyboardInterrupt:
        print(time.monotonic() - began < 5)
    """)
    assert out == "True ['the machine is closed']\n" * 2 + "True\n"


def test_close_beside_ksmd_with_a_long_batch(alone):
    """One batch is a pass, and a pass takes long if each page looks through a long chain."""
    out = alone("""
    machine = ksm.Machine("512M")
    process = machine.spawn()
    length = 1 << 28
    addr = process.mmap(length)
    process.write(addr, b"same" * (length // 4))
    process.madvise(addr, length, ksm.MADV_MERGEABLE)
    machine.ksm.smart_scan = 0
    machine.ksm.max_page_sharing = 2
    machine.ksm.pages_to_scan = 0xffffffff
    machine.ksm.run = 1
    while machine.ksm.pages_sharing < 1000:
        time.sleep(0.01)
    began = time.monotonic()
    machine.close()
    print(time.monotonic() - began < 3)
    """)
    assert out == "True\n"


def test_close_is_interrupted_by_ctrl_c(alone):
    """Another thread's calls take long: it reads all memory, again and again."""
    out = alone("""
    machine = ksm.Machine("1G")
    process = machine.spawn()
    addr = process.mmap(1 << 29)
    process.touch(addr, 1 << 29)
    inside = threading.Event()
    def hold():
        inside.set()
        for _ in range(1000):
            process.read(addr, 1 << 29)
    def catch():
        try:
            hold()
        except ValueError:
            pass
    class Stop(Exception):
        pass
    def handler(*_):
        raise Stop
    signal.signal(signal.SIGALRM, handler)
    thread = threading.Thread(target=catch)
    thread.start()
    inside.wait()
    time.sleep(0.05)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        machine.close()
        time.sleep(1)
        print("closed before it was interrupted")
    except Stop:
        pass
    print(machine.closed)
    thread.join()
    machine.close()
    """)
    assert out.endswith("True\n")


def test_closing_interrupts_what_listens_to_signals(alone):
    """Unmerging listens to signals, as in the kernel."""
    out = alone("""
    machine = ksm.Machine("1G", clock="manual")
    process = machine.spawn()
    length = 1 << 28
    addr = process.mmap(length)
    process.madvise(addr, length, ksm.MADV_MERGEABLE)
    process.write(addr, b"same" * (length // 4))
    machine.ksm.smart_scan = 0
    machine.ksm.scan(3)
    said = []
    def unmerge():
        try:
            machine.ksm.run = 2
        except InterruptedError:
            said.append("interrupted")
    thread = threading.Thread(target=unmerge)
    thread.start()
    while not machine.vmstat()["cow_ksm"]:
        pass
    machine.close()
    thread.join()
    print(said)
    """)
    assert out == "['interrupted']\n"


def test_two_close_at_once(alone):
    out = alone("""
    for _ in range(20):
        machine = ksm.Machine("64M")
        mergeable(machine, 512)
        machine.ksm.run = 1
        threads = [threading.Thread(target=machine.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert machine.closed
    print("done")
    """)
    assert out == "done\n"


def test_views_beside_close(alone):
    """Either the view of the memory is made and the machine stays open, or the view is refused."""
    out = alone("""
    sys.setswitchinterval(1e-5)
    views = 0
    for _ in range(300):
        machine = ksm.Machine("1M", max_memory="1M")
        def look():
            global views
            try:
                with memoryview(machine) as view:
                    views += 1
                    assert len(view) == 1 << 20 and view[5 * PAGE] == 0
            except ValueError as error:
                assert "closed" in str(error)
        thread = threading.Thread(target=look)
        thread.start()
        while True:
            try:
                machine.close()
                break
            except BufferError:
                assert not machine.closed
        thread.join()
    print("done")
    """)
    assert out == "done\n"
