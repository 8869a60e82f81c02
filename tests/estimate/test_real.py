# SPDX-License-Identifier: GPL-2.0-only
"""Real programs, read once for each pass, and scanned in a machine of bytes and in one of fingerprints: all that is counted is equal."""

import shutil
import subprocess
import sys
import time

import pytest

import ksm
from ksm.estimate.savings import Tally
from ksm.sources import Host, open_source
from ksm.sources.blocks import blocks_of
from ksm.sources.live import LiveSource
from ksm.sources.runs import without

pytestmark = pytest.mark.once

PAGE = ksm.PAGE_SIZE
PASSES = 4

PYTHON = """
import sys
kept = []
for line in sys.stdin:
    kept.append(line * 2000)
    table = {number: str(number) for number in range(20_000)}
"""
NODE = "const kept = []; process.stdin.on('data', data => kept.push(data.toString().repeat(2000), new Array(5000).fill(kept.length)));"
JAVA = """
import java.util.*;
public class Kept {
    public static void main(String[] arguments) {
        List<String> kept = new ArrayList<>();
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLine()) kept.add(lines.nextLine().repeat(2000));
    }
}
"""
PROGRAMS = {
    "python": [sys.executable, "-c", PYTHON],
    "perl": ["perl", "-e", "while (<STDIN>) { push @kept, $_ x 2000; $kept{$_ . $.} = [1 .. 500]; }"],
    "bash": ["bash", "-c", "while read line; do for each in {1..3000}; do kept+=(\"$each $line\"); done; done"],
    "awk": ["awk", "{ for (i = 0; i < 30; i++) kept[NR, i] = $0 }"],
    "sort": ["sort"],
    "sqlite": ["sqlite3", ":memory:"],
    "xz": ["xz", "-1", "--stdout", "-"],
    "gdb": ["gdb", "-nx", "-q"],
    "node": ["node", "-e", NODE],
    "java": ["java", "-Xmx64m", "-XX:+UseSerialGC"],
}
LINES = {
    "sqlite": "create table if not exists kept (line); with recursive n(i) as (select 1 union all select i + 1 from n where i < 30000)"
              " insert into kept select 'the same line ' || i from n;\n",
    "gdb": "python kept = globals().get('kept', []) + ['the same line ' * 20000]\n",
    "awk": "the same line again\n" * 1000,
    "xz": "".join(f"line {number}\n" for number in range(10_000)),
    "sort": "".join(f"line {number}\n" for number in range(10_000)),
}  # fmt: skip
# What KSM is told, one for each program in turn
SETTINGS = (
    ("6.12", {}),
    ("6.12", {"use_zero_pages": 1, "smart_scan": 0}),
    ("2.6.38", {}),
    ("6.12", {"max_page_sharing": 2, "smart_scan": 1}),
    ("6.12", {"max_page_sharing": 5, "use_zero_pages": 1}),
    ("6.1", {"max_page_sharing": 5, "use_zero_pages": 1}),
)


class Memory:
    """What a process holds in one pass: its pages, by address."""

    def __init__(self, source: LiveSource):
        self.pages = {}
        buffer = memoryview(bytearray(1 << 20))
        for piece in source.pieces():
            piece.read(buffer, self.take)
        self.runs = []
        for addr in sorted(self.pages):
            if self.runs and self.runs[-1][1] == addr:
                self.runs[-1][1] = addr + PAGE
            else:
                self.runs.append([addr, addr + PAGE])

    def take(self, runs, view):
        at = 0
        for start, end in runs:
            for addr in range(start, end, PAGE):
                self.pages[addr] = bytes(view[at : at + PAGE])
                at += PAGE


def read(program, tmp_path):
    """PASSES times the memory of two processes of this program, which get a line each in between."""
    command = PROGRAMS[program]
    if program == "java":
        (tmp_path / "Kept.java").write_text(JAVA)
        command = [*command, str(tmp_path / "Kept.java")]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    host = Host()
    try:
        passes = []
        for number in range(PASSES):
            for child in children:
                child.stdin.write(LINES.get(program, "the same line again\n").encode())
                child.stdin.flush()
            time.sleep(0.2 if number or program not in ("node", "java", "gdb") else 1)
            host.begin(number)
            sources = [open_source(f"pid:{child.pid}", host) for child in children]
            passes.append([Memory(source) for source in sources])
        return passes
    finally:
        host.close()
        for child in children:
            child.kill()
            child.communicate()


def scan(passes, pages, era, settings):
    """All that is counted after each pass, in a machine of bytes or of fingerprints."""
    counted = []
    with ksm.Machine("2G", max_memory="2G", pages=pages, era=era, clock="manual") as machine:
        for name, value in settings.items():
            setattr(machine.ksm, name, value)
        processes = [machine.spawn() for _ in passes[0]]
        blocks = [[] for _ in processes]
        before = [[] for _ in processes]
        for memories in passes:
            for place, (process, memory) in enumerate(zip(processes, memories, strict=True)):
                wanted = blocks_of(memory.runs)
                for start, end in without(before[place], memory.runs):
                    process.madvise(start, end - start, ksm.MADV_DONTNEED)
                for start, end in without(blocks[place], wanted):
                    process.munmap(start, end - start)
                for start, end in without(wanted, blocks[place]):
                    flags = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED_NOREPLACE
                    process.mmap(end - start, ksm.PROT_READ | ksm.PROT_WRITE, flags, addr=start)
                    process.madvise(start, end - start, ksm.MADV_MERGEABLE)
                blocks[place], before[place] = wanted, memory.runs
                for addr, page in memory.pages.items():
                    process.update(addr, page)
            machine.ksm.scan(1)
            tally = Tally(machine)
            present = []
            for process, own in zip(processes, blocks, strict=True):
                tally.next_source()
                present.append(sum(tally.add(process.page_table(start, end - start)) for start, end in own))
            savings = (tally.zero, tally.within, tally.across)
            counted.append((machine.ksm.attributes(), [process.ksm_stat() for process in processes], present, savings, machine.vmstat()))
        assert machine.check() == []
    return counted


@pytest.mark.parametrize("program", PROGRAMS)
def test_both_machines_count_the_same(program, tmp_path):
    if shutil.which(PROGRAMS[program][0]) is None:
        pytest.skip(f"{program} is not installed")
    passes = read(program, tmp_path)
    era, settings = SETTINGS[list(PROGRAMS).index(program) % len(SETTINGS)]
    with_bytes, with_fingerprints = (scan(passes, pages, era, settings) for pages in ("bytes", "fingerprints"))
    assert sum(with_bytes[-1][2]) > 100
    assert with_bytes[-1][0]["pages_sharing"] > 0
    for number, (one, other) in enumerate(zip(with_bytes, with_fingerprints, strict=True), 1):
        assert one == other, f"pass {number}"
