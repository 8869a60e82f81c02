# SPDX-License-Identifier: GPL-2.0-only
"""Running processes: which of their pages are seen, and that they are not disturbed."""

import os
import re
import signal
import struct
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ksm
from ksm.estimate.scan import Scan
from ksm.sources import Host, SourceDenied, SourceError, SourceGone, open_source, open_sources
from ksm.sources.base import HIGHEST, LOWEST
from ksm.sources.blocks import blocks_of
from ksm.sources.live import LiveSource, guest_name
from ksm.sources.pagemap import anonymous_runs, own_runs, same_memory
from ksm.sources.runs import without
from ksm.sources.stream import BLOCK

PAGE = 4096
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees frames")


def page(number):
    return number.to_bytes(8, "little") * (PAGE // 8)


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


@pytest.fixture
def machine():
    with ksm.Machine("256M") as machine:
        yield machine


@pytest.fixture
def attach(machine, host):
    """A function that attaches a process as a source."""
    sources = []

    def attach(target, **options):
        sources.append(open_source(f"pid:{target.pid}", host, **options))
        sources[-1].attach(machine)
        return sources[-1]

    yield attach
    for source in sources:
        source.close()


def content(source):
    """All pages of a source, in order of their addresses."""
    return [
        source.process.read(addr + place * PAGE, PAGE)
        for addr, length in source.ranges()
        for place, word in enumerate(source.process.page_table(addr, length))
        if word
    ]


def numbers(source):
    """The numbers from 1000 on that fill() has given to pages."""
    found = (int.from_bytes(data[:8], "little") for data in content(source) if data == data[:8] * 512)
    return [number for number in found if 1000 <= number < 9999]


def test_pages_come_and_change_and_go(target, attach):
    target.do("a = area(2000); fill(a, 0, list(range(1000, 1010))); fill(a, 1500, [2000])")
    source = attach(target)
    assert re.fullmatch(rf"pid {target.pid} \(.+\)", source.name)
    assert (source.kind, source.live) == ("process", True)
    assert numbers(source) == [*range(1000, 1010), 2000]
    target.do("fill(a, 3, [3000]); fill(a, 20, [3001])")
    source.refresh(1)
    assert numbers(source) == [1000, 1001, 1002, 3000, *range(1004, 1010), 3001, 2000]
    target.do("a.madvise(mmap.MADV_DONTNEED, 0, 5 * PAGE); a.madvise(mmap.MADV_DONTNEED, 1500 * PAGE, PAGE)")
    source.refresh(2)
    assert numbers(source) == [*range(1005, 1010), 3001]
    target.do("a.close(); b = area(10); fill(b, 0, [4000])")
    source.refresh(3)
    assert numbers(source) == [4000]


@pytest.mark.parametrize(
    "arguments, name",
    [
        (["/usr/bin/qemu-system-x86_64", "-m", "1G", "-name", "guest=vm1,debug-threads=on", "-S"], "vm1"),
        (["qemu-system-x86_64", "-name", "vm2,process=other"], "vm2"),
        (["/usr/libexec/qemu-kvm", "-name", "debug-threads=on,guest=a,,b", "-S"], "a,b"),
        (["kvm", "--name", "vm=3"], ""),
        (["qemu-system-arm", "-m", "1G"], ""),
        (["qemu-system-arm", "-name"], ""),
        (["find", "/", "-name", "guest=vm1"], ""),
        ([], ""),
    ],
)
def test_names_of_guests(arguments, name):
    assert guest_name("".join(f"{argument}\0" for argument in arguments)) == name


def test_a_guest_has_its_name_beside_the_program(host):
    """The target is not QEMU, but says so: exec gives it these arguments."""
    code = "import time; print(1, flush=True); time.sleep(60)"
    guest = subprocess.Popen(
        ["qemu-system-x86_64", "-c", code, "-name", "guest=web-7"], executable=sys.executable, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONHOME": sys.base_prefix},
    )  # fmt: skip
    try:
        guest.stdout.readline()
        source = open_source(f"pid:{guest.pid}", host)
        assert re.fullmatch(rf"pid {guest.pid} \(.+, web-7\)", source.name)
        source.close()
    finally:
        guest.kill()
        guest.communicate()


def test_only_private_anonymous_memory_that_is_there(target, attach, tmp_path):
    (tmp_path / "file").write_bytes(page(1500) * 8)
    target.do("a = area(100); fill(a, 10, [1001])")
    target.do("s = area(10, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS); fill(s, 0, [1002])")
    target.do(f"fd = os.open({str(tmp_path / 'file')!r}, os.O_RDWR)")
    target.do("f = mmap.mmap(fd, 8 * PAGE, flags=mmap.MAP_PRIVATE); f[PAGE]; fill(f, 3, [1003])")  # one page of the file copied
    source = attach(target)
    assert sorted(numbers(source)) == [1001, 1003]
    first = content(source)
    target.do("sum(a[20 * PAGE :: PAGE])")  # this maps the zero page
    source.refresh(1)
    assert abs(len(content(source)) - len(first)) < 20


def test_what_may_not_be_read_is_read(target, attach):
    target.do("a = area(3000); fill(a, 0, [1000 + i % 3 for i in range(3000)])")
    target.do("ctypes.CDLL(None).mprotect(ctypes.c_void_p(address(a) + 100 * PAGE), 1200 * PAGE, 0)")
    source = attach(target)
    assert numbers(source) == [1000 + i % 3 for i in range(3000)]


def test_many_short_runs(target, attach):
    target.do("a = area(6000)")
    target.do("for i in range(3000): fill(a, 2 * i, [1000 + i])")
    assert numbers(attach(target)) == list(range(1000, 4000))


def test_only_advised_memory(target, attach):
    target.do("a = area(20); fill(a, 0, [1001] * 20); b = area(20); fill(b, 0, [1002] * 20)")
    assert content(attach(target, which="advised")) == []
    target.do(f"b.madvise({ksm.MADV_MERGEABLE})")
    assert content(attach(target, which="advised")) == [page(1002)] * 20
    assert sorted(set(numbers(attach(target)))) == [1001, 1002]


def with_flag(text, addr, flag):
    """The text of smaps with one more flag for the mapping that begins at this address."""
    head, mapping = text.split(f"{addr:08x}-", 1)
    return f"{head}{addr:08x}-{mapping.replace('VmFlags:', f'VmFlags: {flag}', 1)}"


@pytest.mark.parametrize("flag, looked_at", [*((flag, False) for flag in ("sh", "ms", "io", "pf", "de", "mm", "ht", "dp")),
                                             *((flag, True) for flag in ("rd", "wr", "mw", "nh", "mg", "lo"))])  # fmt: skip
def test_flags_that_a_mapping_may_not_have(target, attach, monkeypatch, flag, looked_at):
    """The flags with which vma_ksm_compatible() of mm/ksm.c refuses a mapping."""
    target.do("a = area(20); fill(a, 0, [1001] * 20)")
    # The area becomes a mapping of its own, which cannot merge with its neighbours
    target.do("ctypes.CDLL(None).madvise(ctypes.c_void_p(address(a)), 20 * PAGE, 10)")  # MADV_DONTFORK
    [addr] = target.ask("[address(a)]")
    read = LiveSource._text

    def text(source, file):
        return with_flag(read(source, file), addr, flag) if file == "smaps" else read(source, file)

    assert numbers(attach(target)) == [1001] * 20
    monkeypatch.setattr(LiveSource, "_plain", lambda *_: False)
    monkeypatch.setattr(LiveSource, "_text", text)
    assert numbers(attach(target)) == ([1001] * 20 if looked_at else [])


def test_memory_that_comes_late(target, host):
    source = open_source(f"pid:{target.pid}", host, which="advised")
    with Scan([source]) as scan:
        scan.read(0)
        scan.scan(1)
        target.do(f"a = area(20); fill(a, 0, [1001] * 20); a.madvise({ksm.MADV_MERGEABLE})")
        for number in (1, 2):
            scan.read(number)
            scan.scan(number + 1)
        assert scan.result(3, True).savings == (0, 19, 0)
    source.close()


def state(pid, addr, pages):
    """What /proc/PID/pagemap says of each page, without the frame: whether it is present, and exclusive."""
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(addr // PAGE * 8)
        return [entry >> 56 for entry in struct.unpack(f"{pages}Q", file.read(8 * pages))]


def test_the_process_is_not_changed(target, attach):
    """Reading makes no absent page present."""
    target.do("a = area(500); fill(a, 0, list(range(1000, 1100)))")
    [addr] = target.ask("[address(a)]")
    before = state(target.pid, addr, 500)
    assert [bool(page & 0x80) for page in before] == [True] * 100 + [False] * 400
    source = attach(target)
    for number in range(1, 4):
        source.refresh(number)
    assert state(target.pid, addr, 500) == before


class Pid:
    """A process by its number, as attach() wants it."""

    def __init__(self, pid):
        self.pid = pid


CHILD = """
child = os.fork()
if not child:
    fill(a, 200, [1] * 100)
    time.sleep(3600)
"""


@pytest.fixture
def family(target):
    """A process with 300 pages, and its child, which has written to the last 100 of them: (parent, child, address)."""
    target.do("a = area(300); fill(a, 0, list(range(1000, 1300)))")
    target.do(f"exec({CHILD!r})")
    child, addr = target.ask("child, address(a)")
    while state(child, addr, 300)[299] & 1 == 0:
        time.sleep(0.01)
    yield Pid(target.pid), Pid(child), addr
    os.kill(child, signal.SIGKILL)


def test_pages_in_common_stay_in_common(family, attach):
    # process_vm_readv() would give the child its own copies.
    parent, child, addr = family
    before = [state(process.pid, addr, 300) for process in (parent, child)]
    assert before[1][0] & 1 == 0
    for process in (parent, child):
        attach(process).refresh(1)
    assert [state(process.pid, addr, 300) for process in (parent, child)] == before


@needs_root
def test_pieces_have_pages_in_common_once(family, host):
    parent, child, addr = family
    first, second = (open_source(f"pid:{process.pid}", host) for process in (parent, child))

    def pages(source):
        runs = [run for piece in source.pieces() for run in piece.runs]
        return sum(max(0, min(end, addr + 300 * PAGE) - max(start, addr)) for start, end in runs) // PAGE

    assert pages(first) == 300
    assert pages(second) == 100
    assert first.shared == 0
    assert second.shared >= 200
    assert first.hidden == second.hidden == 0
    # When the first process is not read any more, the pages count for the second one.
    host.begin(1)
    assert pages(second) == 300
    assert second.shared == 0


def test_who_cannot_see_frames_says_so(family, attach, monkeypatch):
    if os.geteuid() == 0:
        monkeypatch.setattr("ksm.sources.live.shared_runs", lambda *_, **__: ([], [], [], [], 200))
    assert attach(family[1]).hidden >= 200


def test_old_kernels_give_the_same(target, host):
    target.do("a = area(4000); fill(a, 0, list(range(1000, 1300))); fill(a, 3000, [1, 2, 3]); sum(a[2000 * PAGE : 2100 * PAGE : PAGE])")
    with open(f"/proc/{target.pid}/maps") as file:
        areas = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in file if " rw-p " in line]
    with open(f"/proc/{target.pid}/pagemap", "rb") as pagemap:
        runs = anonymous_runs(pagemap.fileno(), host.kpageflags, areas)
        if os.geteuid() == 0:
            assert anonymous_runs(pagemap.fileno(), host.kpageflags, areas, ask_ioctl=False) == runs
        blind = anonymous_runs(pagemap.fileno(), -1, areas, ask_ioctl=False)
        alone, common, shared, _ = own_runs(pagemap.fileno(), host.kpageflags, runs, set())
    assert without(runs, blind) == []
    assert shared == 0
    assert without(runs, sorted(alone + common)) == []


def test_threads_share_memory_and_processes_do_not(target, start):
    target.do("import threading; threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()")
    [thread] = [int(tid) for tid in os.listdir(f"/proc/{target.pid}/task") if int(tid) != target.pid]
    if not same_memory(target.pid, target.pid):
        pytest.skip("no kcmp() here")
    assert same_memory(target.pid, thread)
    assert not same_memory(target.pid, start().pid)


def test_a_process_that_exits(target, attach, host):
    source = attach(target)
    target.end()
    with pytest.raises(SourceGone, match=rf"^pid {target.pid} \(.*\): exited during the scan$"):
        source.refresh(1)
    with pytest.raises(SourceGone, match=rf"^pid {target.pid}: no such process$"):
        open_source(f"pid:{target.pid}", host)


def test_a_number_that_became_another_process(target, attach):
    source = attach(target)
    source.started = "1"
    with pytest.raises(SourceGone, match="exited during the scan"):
        source.refresh(1)


def test_a_zombie(host):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(SourceGone, match=r"has exited$"):
            open_source(f"pid:{pid}", host)
    finally:
        os.waitpid(pid, 0)


def test_one_of_many_that_exits_is_skipped(target, start, host):
    other = start()
    sources, _ = open_sources([f"pid:{target.pid}", f"pid:{other.pid}"], host)
    other.end()
    with Scan(sources) as scan:
        result = scan.run(interval=0)
    for source in sources:
        source.close()
    assert [source.name for source in result.sources] == [sources[0].name]
    assert result.notes[0].startswith(f"skipped pid {other.pid} (")


def test_what_is_no_process(host):
    for text, reason in (
        ("pid:", "a process is written as pid:N"),
        ("pid:x", "a process is written as pid:N"),
        ("pid:-1", "a process is written as pid:N"),
        ("pid:999999999", "no such process"),
        (f"pid:{os.getpid()}", "that is this ksm"),
    ):
        with pytest.raises(SourceError, match=reason):
            open_source(text, host)
    with pytest.raises(SourceError, match="given twice"):
        open_sources([f"pid:{os.getppid()}", f"pid:0{os.getppid()}"], host)


def test_kernel_threads(host):
    with open("/proc/2/comm") as file:
        if file.read() != "kthreadd\n":
            pytest.skip("no kernel threads here")
    with pytest.raises(SourceError, match=r"a kernel thread has no memory of its own|no permission"):
        open_source("pid:2", host)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_no_permission(target, host):
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return
    code = 1
    try:
        os.setuid(65534)
        try:
            open_source(f"pid:{target.pid}", host)
        except SourceDenied as error:
            code = 0 if str(error).endswith(": no permission to read its memory") else 2
    finally:
        os._exit(code)


def test_blocks():
    assert blocks_of([]) == []
    assert blocks_of([(0x1000 + LOWEST, 0x3000 + LOWEST)]) == [(LOWEST, BLOCK)]
    assert blocks_of([(BLOCK, BLOCK + PAGE), (3 * BLOCK - PAGE, 3 * BLOCK), (5 * BLOCK, 7 * BLOCK + PAGE)]) == [
        (BLOCK, 3 * BLOCK),
        (5 * BLOCK, 8 * BLOCK),
    ]
    assert blocks_of([(HIGHEST - PAGE, HIGHEST)]) == [((1 << 47) - BLOCK, HIGHEST)]


def runs_of(bits):
    """The runs that the set bits make."""
    return [(match.start(), match.end()) for match in re.finditer("1+", bits)]


@given(st.text("01", max_size=40).map(runs_of), st.text("01", max_size=40).map(runs_of))
def test_without(runs, others):
    covered = {at for start, end in others for at in range(start, end)}
    expected = [at for start, end in runs for at in range(start, end) if at not in covered]
    assert [at for start, end in without(runs, others) for at in range(start, end)] == expected
