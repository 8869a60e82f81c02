# SPDX-License-Identifier: GPL-2.0-only
"""A machine gives the computer's memory back that it has taken."""

import pytest

TAKEN = """if True:
    import gc, sys
    import ksm
    PAGE = ksm.PAGE_SIZE

    def taken():
        gc.collect()
        with open("/proc/self/status") as status:
            return int(next(line for line in status if line.startswith("RssAnon")).split()[1]) >> 10

    def life(number):
        with ksm.Machine("128M") as machine:
            for i in range(number):
                process = machine.spawn()
                addr = process.mmap(PAGE)
                process.write(addr, b"%d" % (i % 7))
                process.madvise(addr, PAGE, ksm.MADV_MERGEABLE)
                if i % 2:
                    process.fork()
                if i % 100 == 0:
                    process.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
                    process.touch(process.mmap(4 << 20), 4 << 20) if i == 0 else None
            machine.ksm.scan(3)
            return taken()
"""


def test_a_machine_of_many_processes_gives_all_back(in_a_process):
    in_a_process(TAKEN + """
    life(10)
    before = taken()
    full = life(6000)
    assert full - before > 100
    assert taken() - before < 20, (before, full, taken())
    """)


@pytest.mark.parametrize("how", ["exit", "munmap", "close"])
def test_tables_are_all_counted(in_a_process, how):
    """check() finds an owner for every page table, also while processes exit."""
    in_a_process(TAKEN + f"""
    with ksm.Machine("64M", transparent_hugepage="always") as machine:
        processes = []
        for i in range(50):
            process = machine.spawn()
            for place in (1 << 20, 1 << 32, 1 << 42):
                process.mmap(4 << 20, addr=place + (i << 30) % (1 << 40), flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED)
                process.write(place + (i << 30) % (1 << 40), b"x")
            processes.append(process)
            processes.append(process.fork())
        assert machine.check() == []
        for process in processes[::3]:
            if {how!r} == "exit":
                process.exit()
            elif {how!r} == "munmap":
                for vma in process.maps():
                    process.munmap(vma.start, vma.end - vma.start)
        assert machine.check() == []
    """)
