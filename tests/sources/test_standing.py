# SPDX-License-Identifier: GPL-2.0-only
"""What a process has already: mergeable mappings, pins, pages that KSM has merged, and frames that others have, too."""

import ctypes
import os
import sys
import time
import traceback

import pytest

import ksm
from ksm.estimate.scan import Scan
from ksm.sources import Host, SourceError, open_source, open_sources
from ksm.sources.live import LiveSource
from ksm.sources.merged import MergedFrames
from ksm.sources.pagemap import learn_ksm_flag
from ksm.sources.pins import buffers_of
from ksm.sources.standing import Standing

PAGE = 4096
KPF_KSM = 1 << 21
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees frames")
CALL = f"ctypes.CDLL(None).prctl({ksm.PR_SET_MEMORY_MERGE}, 1, 0, 0, 0)"
EXEC = f"import ctypes, os, sys; sys.exit(77) if {CALL} else os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


def starts(pid, host, which):
    """Where the mappings of a process begin that count."""
    source = open_source(f"pid:{pid}", host, which=which)
    source.close()
    return {mapping.start for mapping in source.mappings}, source.standing


def call_prctl(target):
    if target.ask(f"[{CALL}]") != [0]:
        pytest.skip("this kernel has no PR_SET_MEMORY_MERGE")


# The rules of mm/ksm.c, on the running kernel. The processes live for less than a second, as others may measure KSM.


def test_prctl_flags_what_was_foretold(target, host):
    """Also the stack, and what MADV_UNMERGEABLE was for. A second call changes nothing."""
    target.do(f"a = area(20); fill(a, 0, [7] * 20); b = area(20); a.madvise({ksm.MADV_UNMERGEABLE})")
    foretold, _ = starts(target.pid, host, "prctl")
    assert starts(target.pid, host, "is")[0] == set()
    call_prctl(target)
    after, standing = starts(target.pid, host, "is")
    assert foretold <= after  # the call itself may map something
    if standing.merge_any is None:
        pytest.skip("before Linux 6.14, the kernel does not tell who has called prctl()")
    assert standing.merge_any
    assert "[stack]" not in standing.left
    [addr] = target.ask("[address(a)]")
    target.do(f"a.madvise({ksm.MADV_UNMERGEABLE})")
    target.do(CALL)
    for which in ("prctl", "advised", "is"):
        now, standing = starts(target.pid, host, which)
        assert addr not in now
        assert standing.left["anonymous mappings"] == 20 * PAGE


def test_exec_keeps_the_stack_out(start, host):
    """The flag of the process is inherited, and flags each mapping that mmap() and brk() make. exec makes the stack in another way."""
    try:
        target = start(sys.executable, "-c", EXEC)
    except ValueError:
        pytest.skip("this kernel has no PR_SET_MEMORY_MERGE")
    target.do("a = area(20); fill(a, 0, [7] * 20)")
    now, standing = starts(target.pid, host, "prctl")
    if standing.merge_any is None:
        pytest.skip("before Linux 6.14, the kernel does not tell who has called prctl()")
    assert target.ask("[address(a)]")[0] in now
    assert set(standing.left) == {"[stack]"}
    # What the process has called is undone: then a call flags the stack, too.
    target.do(CALL.replace(", 1,", ", 0,"))
    assert starts(target.pid, host, "prctl")[1].left == {}
    with open(f"/proc/{target.pid}/maps") as maps:
        stack = next(int(line.partition("-")[0], 16) for line in maps if "[stack]" in line)
    assert stack in starts(target.pid, host, "prctl")[0] - now


def test_advice_that_is_taken_back_during_a_scan(target, host):
    """Only the flag of the mapping changes. Its line in maps stays as it is."""
    call_prctl(target)
    target.do("a = area(20); fill(a, 0, [7] * 20); ctypes.CDLL(None).madvise(ctypes.c_void_p(address(a)), 20 * PAGE, 10)")  # MADV_DONTFORK
    source = open_source(f"pid:{target.pid}", host)
    if source.standing.merge_any is None:
        pytest.skip("before Linux 6.14, the kernel does not tell who has called prctl()")
    [addr] = target.ask("[address(a)]")
    with ksm.Machine("256M") as machine:
        source.attach(machine)
        assert all(source.process.page_table(addr, 20 * PAGE))
        target.do(f"a.madvise({ksm.MADV_UNMERGEABLE})")
        source.refresh(1)
        assert not any(source.process.page_table(addr, 20 * PAGE))
    source.close()


def test_nothing_is_left_that_is_mergeable(target, host, monkeypatch):
    """A process may have called prctl(), and MADV_UNMERGEABLE for all of its memory."""
    read = LiveSource._text

    def text(source, file):
        return "ksm_merge_any: yes\nksm_mergeable: no\n" if file == "ksm_stat" else read(source, file)

    monkeypatch.setattr(LiveSource, "_text", text)
    assert starts(target.pid, host, "prctl")[0] == set()


def test_a_kernel_that_does_not_tell(target, host, monkeypatch):
    read = LiveSource._text

    def text(source, file):
        if file == "ksm_stat":
            raise FileNotFoundError(2, "No such file or directory")
        return read(source, file)

    monkeypatch.setattr(LiveSource, "_text", text)
    assert starts(target.pid, host, "prctl")[1].merge_any is None


# Pins


def test_vm_pin_is_in_doubt():
    standing = Standing(held=3)
    status = "Name:\tx\nVmLck:\t      40 kB\nVmPin:\t      20 kB\n"
    standing.take_pins(status, "")
    assert (standing.pinned, standing.device) == (2, False)
    standing.take_pins(status, "7f00-8f00 rw-s 00000000 00:0f 1  anon_inode:[vfio-device]\n")
    assert (standing.pinned, standing.device) == (12, True)
    standing.take_pins("Name:\tx\n", "")
    assert standing.pinned == 0


RING = """\
UserFiles:	1
    0: 0x7000/4096
UserBufs:	3
    0: 0x7f1b8c8b6000/409600
    1: 0x7f1b8c8b6010/16
    2: 0x0/0
PollList:
    3: 0x9000/4096
"""


def test_buffers_of_a_ring():
    assert buffers_of(RING) == [(0x7F1B8C8B6000, 0x7F1B8C91A000), (0x7F1B8C8B6000, 0x7F1B8C8B7000)]
    assert buffers_of("SqMask:\t0x3\n") == []


def register(target, memory, pages):
    """Have io_uring pin the first pages of an area, or skip."""
    target.do("libc = ctypes.CDLL(None); ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))")
    target.do(f"buffer = (ctypes.c_void_p * 2)(address({memory}), {pages} * PAGE)")
    if target.ask("[0 if ring >= 0 and libc.syscall(427, ring, 0, ctypes.byref(buffer), 1) == 0 else 1]") != [0]:
        pytest.skip("no io_uring here")


@pytest.mark.parametrize("exact", [False, True])
def test_registered_buffers_do_not_merge(target, host, exact):
    """Of 100 pairs, half have a page that is registered: write_protect_page() counts one reference too many."""
    target.do("a = area(200); fill(a, 0, [1000 + i % 100 for i in range(200)])")
    register(target, "a", 50)
    source = open_source(f"pid:{target.pid}", host)
    with Scan([source], exact=exact) as scan:
        result = scan.run(3, 0)
        assert (source.standing.held, source.standing.pinned) == (50, 0)
        assert result.ledger.within == 50
        assert result.freed == (result.ledger.freed, result.ledger.freed)
        assert any(note.startswith("50 pages are registered with io_uring") for note in result.notes)
        # Pins end with the ring.
        target.do("os.close(ring)")
        deadline = time.monotonic() + 10
        while target.ask("[int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmPin')]") != [0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for number in range(3, 6):
            scan.read(number)
            scan.scan(number + 1)
        assert source.standing.held == 0
    source.close()


VMSPLICE = """
import ctypes
class iovec(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
ends = os.pipe()
assert ctypes.CDLL(None).vmsplice(ends[1], ctypes.byref(iovec(address(a), 10 * 4096)), ctypes.c_ulong(1), 0) == 10 * 4096
"""


def test_pages_in_pipes_are_in_doubt(target, host):
    """Which pages lie in a pipe, no file tells. How many do is known, and a pipe with two ends counts once."""
    target.do("a = area(200); fill(a, 0, [1000 + i % 100 for i in range(200)])")
    sources = [open_source(f"pid:{target.pid}", host)]
    with Scan(sources) as scan:
        assert not any("pipes" in doubt.why for doubt in scan.run(3, 0).doubts)
        target.do(f"exec({VMSPLICE!r}, globals())")
        result = scan.run(1, 0)
        assert [sum(source.standing.pipes.values()) for source in sources] == [10]
        [doubt] = [doubt for doubt in result.doubts if "pipes" in doubt.why]
        assert (doubt.fewer, doubt.more) == (10, 0)
        assert doubt.why.startswith("10 pages at most lie in pipes: ")
        assert target.ask("[len(os.read(ends[0], 10 * 4096)), os.write(ends[1], b'x')]") == [10 * 4096, 1]
        scan.run(1, 0)
        assert [*sources[0].standing.pipes.values()] == [1]
        assert target.ask("[len(os.read(ends[0], 1))]") == [1]
        scan.run(1, 0)
        assert sources[0].standing.pipes == {}
    sources[0].close()


def test_a_pipe_that_may_not_be_looked_into(target, host, monkeypatch):
    monkeypatch.setattr("ksm.sources.pins.SYS_PIDFD_GETFD", -1)
    target.do("a = area(10); fill(a, 0, [1] * 10)")
    target.do(f"exec({VMSPLICE!r}, globals())")
    source = open_source(f"pid:{target.pid}", host)
    with Scan([source]) as scan:
        assert not any("pipes" in doubt.why for doubt in scan.run(3, 0).doubts)
    source.close()


def test_a_ring_that_is_given_away(target, host, monkeypatch):
    """VmPin counts for the process that has registered the buffers. Another one that has the ring has them nowhere."""
    target.do("a = area(200); fill(a, 0, [1000 + i % 100 for i in range(200)])")
    register(target, "a", 50)
    [addr] = target.ask("[address(a)]")
    monkeypatch.setattr("ksm.sources.live.registered_buffers", lambda _: [(addr, addr + 51 * PAGE)])
    source = open_source(f"pid:{target.pid}", host)
    with Scan([source]) as scan:
        result = scan.run(3, 0)
        assert (source.standing.held, source.standing.pinned) == (0, 50)
        assert result.freed == (max(0, result.ledger.freed - 50), result.ledger.freed)
    source.close()


def test_buffers_that_are_registered_when_they_are_merged(target, host):
    """A pin for writing takes a page out of what shares it."""
    target.do("a = area(200); fill(a, 0, [1000 + i % 100 for i in range(200)])")
    source = open_source(f"pid:{target.pid}", host)
    with Scan([source], settings={"smart_scan": "0"}) as scan:
        before = scan.run(3, 0).ledger.within
        register(target, "a", 50)
        for number in (3, 4):
            scan.read(number)
            scan.scan(number + 1)
        assert source.standing.held == 50
        assert scan.result(5, True).ledger.within == before - 50
    source.close()


def test_pins_of_more_than_there_is(target, host, monkeypatch):
    """Rings of perf are in VmPin, too."""
    read = LiveSource._text

    def text(source, file):
        return read(source, file).replace("VmPin:\t       0 kB", "VmPin:\t 9999999 kB") if file == "status" else read(source, file)

    monkeypatch.setattr(LiveSource, "_text", text)
    result, _ = scan_of([target.pid], host)
    assert [doubt.fewer for doubt in result.doubts] == [result.pages]
    assert result.freed.least == 0


# What KSM has merged already. The kernel's own stays as it is: the flags of frames are made up.


def frames(pid, addr, pages):
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(addr // PAGE * 8)
        return [entry & (1 << 55) - 1 for entry in memoryview(file.read(8 * pages)).cast("Q")]


@pytest.fixture
def family(target):
    """A process whose child has 100 pages in common with it, of which the flags say that KSM has merged them: (pid, pid, flags)."""
    target.do(f"a = area(100); fill(a, 0, list(range(1000, 1100))); a.madvise({ksm.MADV_MERGEABLE}); child = sleeper()")
    child, addr = target.ask("child, address(a)")
    flags = os.memfd_create("kpageflags")
    for pfn in frames(target.pid, addr, 100):
        os.pwrite(flags, KPF_KSM.to_bytes(8, "little"), pfn * 8)
    yield target.pid, child, flags
    os.close(flags)
    os.kill(child, 9)


def scan_of(pids, host, text=None):
    sources = [open_source(f"pid:{pid}", host) for pid in pids]
    try:
        with Scan(sources) as scan:
            return scan.run(3, 0), scan.families
    finally:
        for source in sources:
            source.close()


@needs_root
def test_what_is_merged_already_is_not_freed_again(family, host):
    first, second, flags = family
    os.close(host.kpageflags)
    host.kpageflags = os.dup(flags)
    result, families = scan_of([first, second], host)
    assert families  # other pages are shared since the fork
    assert result.already == (100, 100)
    assert result.freed == (result.ledger.freed - 100, result.ledger.freed - 100)
    assert result.ledger.across >= 100


@needs_root
def test_flags_that_say_that_each_page_is_merged(family, host):
    """In 6.12, each anonymous page has KPF_KSM. Then frame numbers alone tell what is shared, and a fork is believed to have done it."""
    first, second, _ = family
    pages = os.sysconf("SC_PHYS_PAGES")
    everything = os.memfd_create("kpageflags")
    with open("/proc/zoneinfo") as file:
        spans = [int(line.split()[-1]) for line in file if "start_pfn" in line]
    assert spans
    os.pwrite(everything, KPF_KSM.to_bytes(8, "little") * (max(spans) + pages), 0)
    try:
        os.close(host.kpageflags)
        host.kpageflags = os.dup(everything)
        assert not learn_ksm_flag(host.kpageflags)
        result, families = scan_of([first, second], host)
        assert families
        assert result.shared >= 100
        assert result.already == (0, 0)
    finally:
        os.close(everything)
        with open("/proc/kpageflags", "rb") as file:
            learn_ksm_flag(file.fileno())


def test_zero_pages_of_ksm_are_freed_already(target, host, monkeypatch):
    """They are no pages of the process any more. Only a counter tells of them."""
    target.do("a = area(100); fill(a, 0, [7] * 100)")
    read = LiveSource._text
    zeros = 0

    def text(source, file):
        return read(source, file).replace("ksm_zero_pages 0", f"ksm_zero_pages {zeros}") if file == "ksm_stat" else read(source, file)

    monkeypatch.setattr(LiveSource, "_text", text)
    before, _ = scan_of([target.pid], host)
    zeros = 5000
    after, _ = scan_of([target.pid], host)
    if after.already.most == 0:
        pytest.skip("this kernel has no ksm_zero_pages")
    assert after.already == (5000, 5000)
    assert after.ledger.freed + after.ledger.kept == after.ledger.pages == after.pages >= 5100
    assert after.ledger.zero - before.ledger.zero >= 4900
    assert after.freed == (after.ledger.freed - 5000, after.ledger.freed - 5000)
    assert after.ksm["ksm_zero_pages"] == after.sources[0].ksm_stat["ksm_zero_pages"] == 5000


# Without root


DROP = "ctypes.CDLL(None).capset((ctypes.c_uint * 2)(0x20080522, 0), bytes(24))"  # _LINUX_CAPABILITY_VERSION_3


def drop_capabilities():
    assert eval(DROP, {"ctypes": ctypes}) == 0


def become_nobody():
    os.setresgid(65534, 65534, 65534)
    os.setuid(65534)


def in_child(function, prepare=lambda: None):
    """Run a function in a child, which has prepared itself: what it returns, a list of numbers."""
    down, up = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(down)
            prepare()
            os.write(up, " ".join(map(str, function())).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(up)
    with os.fdopen(down) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return [int(number) for number in text.split()]


@needs_root
@pytest.mark.parametrize("whole", [True, False])
def test_a_range_where_frames_are_hidden(target, host, whole):
    """Nobody sees less than root. What root finds lies between what nobody says. It helps to know that all processes are in the scan."""
    target.do("import signal; os.setresgid(65534, 65534, 65534); os.setuid(65534); ctypes.CDLL(None).prctl(4, 1)")  # PR_SET_DUMPABLE
    target.do("a = area(400); fill(a, 0, list(range(1000, 1300)) + [7] * 100)")
    pids = [target.pid, *(target.ask("[child()]")[0] for _ in range(3))]
    for number, pid in enumerate(pids[1:]):
        target.ask(f"[tell({pid}, 'ctypes.CDLL(None).prctl(4, 1); fill(a, {100 * number}, [9] * 50)')]")
    root, _ = scan_of(pids, host)
    assert root.freed.least == root.freed.most

    def scan():
        blind = Host()
        blind.whole = whole
        result, families = scan_of(pids, blind)
        assert not families
        blind.close()
        [hidden] = (doubt.fewer for doubt in result.doubts)
        return [*result.freed, *result.already, hidden, result.ledger.freed]

    try:
        least, most, already, already_most, hidden, copies = in_child(scan, become_nobody)
    finally:
        for pid in pids[1:]:
            os.kill(pid, 9)
    assert least <= root.freed.most <= most
    assert 0 <= least < most == copies
    assert (max(0, most - hidden), already) == (least, 0)
    assert already_most == 0 or ksm_is_used()
    assert not whole or least >= root.freed.most - 100


@needs_root
def test_root_without_capabilities_sees_no_frames(target):
    """As in a container: it may open /proc/kpageflags, and pagemap shows it no frames. A mapping may have the kernel's zero page in it."""
    target.do(f"a = area(1000); a.madvise(15); fill(a, 0, [*range(1000, 1600)]); {DROP}")  # MADV_NOHUGEPAGE
    target.do("[a[page * PAGE] for page in range(600, 1000)]")

    def scan():
        blind = Host()
        result, _ = scan_of([target.pid], blind)
        return [blind.kpageflags, blind.kpagecount, result.ledger.zero]

    kpageflags, kpagecount, zero = in_child(scan, drop_capabilities)
    assert (kpageflags, kpagecount) == (-1, -1)
    assert zero < 400


@needs_root
def test_frames_that_a_process_outside_the_scan_keeps(target, host):
    """Of a parent, its pages are in its children, too. To merge them with others may free nothing."""
    target.do("a = area(300); fill(a, 0, list(range(1000, 1200)) * 1 + [1000 + i for i in range(100)]); import signal")
    children = [target.ask("[child()]")[0] for _ in range(2)]
    try:
        alone, _ = scan_of([target.pid], host)
        both, _ = scan_of([target.pid, children[0]], host)
        every, _ = scan_of([target.pid, *children], host)
    finally:
        for pid in children:
            os.kill(pid, 9)
    for result in (alone, both):
        assert result.ledger.freed >= 100
        assert result.freed.least <= result.ledger.freed - 100
        assert any("share their frames with processes outside the scan" in doubt.why for doubt in result.doubts)
    assert every.freed.least == every.freed.most >= 100


def opened(texts):
    """Open sources, and close them: whether they are all processes, and what is left out."""
    host = Host()
    sources, remarks = open_sources(texts, host)
    for source in sources:
        source.close()
    host.close()
    return host.whole, remarks


@needs_root
def test_all_processes_are_the_whole():
    whole, remarks = opened([])
    assert whole is not any("skipped" in remark for remark in remarks)
    assert not opened([f"pid:{os.getppid()}"])[0]


@needs_root
@pytest.mark.parametrize("prepare", [become_nobody, drop_capabilities])
def test_processes_that_may_not_be_read_may_keep_frames(target, prepare):
    """As the parent of servers that have dropped their rights. So what can be read is not the whole."""

    def scan():
        whole, remarks = opened([])
        return [whole, any("lack of permission" in remark for remark in remarks)]

    assert in_child(lambda: map(int, scan()), prepare) == [0, 1]


@needs_root
def test_a_process_that_is_left_out_later_may_keep_frames(target, host, monkeypatch):
    refresh = LiveSource.refresh

    def grow(source, number):
        if source.pid == target.pid and number:
            raise SourceError("too large")
        refresh(source, number)

    monkeypatch.setattr(LiveSource, "refresh", grow)
    sources = [open_source(f"pid:{pid}", host) for pid in (target.pid, os.getppid())]
    host.whole = True
    with Scan(sources) as scan:
        assert scan.whole
        scan.run(2, 0)
        assert not scan.whole
    for source in sources:
        source.close()


def ksm_is_used():
    with open("/sys/kernel/mm/ksm/pages_shared") as file:
        return file.read() != "0\n"


def test_one_that_exits_keeps_what_was_known(target, host):
    source = open_source(f"pid:{target.pid}", host)
    with ksm.Machine("256M") as machine:
        source.attach(machine)
        target.end()
        source.hidden = 5
        source.look_back(MergedFrames())
        assert (source.standing.hidden, source.standing.common, source.standing.merged) == (5, 5 * PAGE, None)
        with pytest.raises(SourceError):
            source.look()
    source.close()
