# SPDX-License-Identifier: GPL-2.0-only
"""Swap at random: every way to write, and every way to move a page or to share it; each byte is what was last written.

tests/test_stateful.py does the same for all of the machine. Here there are few pages, some of a huge page, some beside it, in related
processes, and a run is short. A model keeps the bytes. After each rule it is compared with the frames and the swap area, and
machine.check() compares clean pages with their slots. At the end every page is read, wherever it is.
"""

import ctypes
import errno
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pages import PAGE, damage, finish, frames, looks_like_zeros

import ksm
from ksm.testing.corrupt import machine_fields, slot_fields

pytestmark = pytest.mark.once

RW = ksm.PROT_READ | ksm.PROT_WRITE
HUGE = 512 * PAGE
BASE = 16 * HUGE
# Two small pages before the huge page, and pages at both of its ends
PLACES = [BASE + i * PAGE for i in (-2, -1, 0, 1, 2, 510, 511)]
START, LENGTH = BASE - 2 * PAGE, HUGE + 2 * PAGE
POOL = [bytes(PAGE), b"A" * PAGE, b"A" * (PAGE - 1) + b"B", b"\1" + bytes(PAGE - 1), looks_like_zeros()]
MOST_PROCESSES = 3

who = st.integers(0, MOST_PROCESSES - 1)
ALL = list(range(len(PLACES)))
places = st.sampled_from([ALL, ALL, ALL[:2], ALL[2:], *([i] for i in ALL)])
contents = st.integers(0, len(POOL) - 1)        # contents by number, so that failing runs print well


@contextmanager
def may_fail(*errors):
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise


class Swapping(RuleBasedStateMachine):
    """Two NUMA nodes of two blocks each, and a swap area that may be too small."""

    @initialize(huge=st.booleans(), swap=st.sampled_from([1 << 20, 1 << 20, 8 * PAGE]), zero=st.booleans(), plain=st.booleans())
    def start(self, huge, swap, zero, plain):
        self.swap = swap
        self.machine = ksm.Machine("8M", max_memory="8M", nodes=2, swap=swap, plain=plain,
                                   transparent_hugepage="always" if huge else "never")
        self.view = memoryview(self.machine)
        self.machine.ksm.smart_scan = 0
        self.machine.ksm.use_zero_pages = zero
        process = self.machine.spawn(node=1)
        process.mmap(LENGTH, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr=START)
        self.known = {process: [bytes(PAGE)] * len(PLACES)}
        self.protected = {process: set()}
        self.write(0, ALL, 1, "store")

    def process(self, who):
        return list(self.known)[who % len(self.known)]

    # Bytes

    @rule(who=who, places=places, content=contents, how=st.sampled_from(["store", "force", "force", "update"]))
    def write(self, who, places, content, how):
        process = self.process(who)
        for i in places:
            data = POOL[(content + i) % len(POOL)]
            if i in self.protected[process] or how == "force":
                process.write(PLACES[i], data, force=True)
            elif how == "store":
                process.write(PLACES[i], data)
            else:
                assert process.update(PLACES[i], data) == 1 or self.known[process][i] == data
            self.known[process][i] = data

    @rule(who=who, places=places, offset=st.sampled_from([0, 2048, PAGE - 1]), byte=st.sampled_from([b"\0", b"B"]), force=st.booleans())
    def write_a_byte(self, who, places, offset, byte, force):
        process = self.process(who)
        for i in places:
            process.write(PLACES[i] + offset, byte, force=force or i in self.protected[process])
            old = self.known[process][i]
            self.known[process][i] = old[:offset] + byte + old[offset + 1:]

    @rule(who=who, places=places, force=st.booleans())
    def read(self, who, places, force):
        process = self.process(who)
        for i in places:
            assert process.read(PLACES[i], PAGE, force=force) == self.known[process][i]

    @rule(who=who, places=places)
    def discard(self, who, places):
        process = self.process(who)
        for i in places:
            process.madvise(PLACES[i], PAGE, ksm.MADV_DONTNEED)
            self.known[process][i] = bytes(PAGE)

    # Mappings and processes

    @rule(who=who, places=places, prot=st.sampled_from([ksm.PROT_READ, RW]))
    def protect(self, who, places, prot):
        process = self.process(who)
        for i in places:
            process.mprotect(PLACES[i], PAGE, prot)
            (self.protected[process].discard if prot == RW else self.protected[process].add)(i)

    @rule(who=who, places=places)
    def move_there_and_back(self, who, places):
        for i in places:
            self.process(who).mremap(PLACES[i], PAGE, PAGE, new_addr=PLACES[i] + 4 * HUGE)
        for i in places:
            self.process(who).mremap(PLACES[i] + 4 * HUGE, PAGE, PAGE, new_addr=PLACES[i])

    @precondition(lambda self: len(self.known) < MOST_PROCESSES)
    @rule(who=who)
    def fork(self, who):
        process = self.process(who)
        child = process.fork()
        self.known[child] = list(self.known[process])
        self.protected[child] = set(self.protected[process])

    @precondition(lambda self: len(self.known) > 1)
    @rule(who=who)
    def exit(self, who):
        process = self.process(who)
        del self.known[process]
        process.exit()

    # Swap

    @rule(who=who, places=places)
    def swap_out(self, who, places):
        for i in places:
            self.process(who).swap_out(PLACES[i], PAGE)

    @rule(who=who, places=places, read=st.booleans())
    def swap_out_and_in(self, who, places, read):
        self.swap_out(who, places)
        self.read(who, places, not read)

    @rule(who=who, place=places)
    def swap_out_while_held(self, who, place):
        """The page is held: it is unmapped and written to swap, and stays in the swap cache."""
        (frame,) = frames(self.process(who), PLACES[place[0]])
        if frame:
            self.machine._get_page(frame)
            self.process(who).swap_out(PLACES[place[0]], PAGE)
            self.machine._put_page(frame)

    @rule()
    def swapoff(self):
        self.machine.swapoff()
        self.machine.swapon(self.swap)

    # Frames

    @rule(who=who, places=places, node=st.sampled_from([0, 1, None]))
    def migrate(self, who, places, node):
        for i in places:
            (frame,) = frames(self.process(who), PLACES[i])
            if frame:
                with may_fail(errno.EAGAIN, errno.EBUSY):
                    self.machine.migrate(frame, node=node)

    @rule(who=who, node=st.integers(0, 1))
    def move_pages(self, who, node):
        for place in PLACES:
            self.process(who).move_pages(place, PAGE, node)

    @rule(block=st.integers(1, 3))
    def offline(self, block):
        with may_fail(errno.EBUSY):
            self.machine.offline(block * 512, 512)
            self.machine.online(block * 512, 512)

    # KSM

    @rule(who=who, passes=st.integers(1, 3))
    def merge(self, who, passes):
        self.process(who).madvise(START, LENGTH, ksm.MADV_MERGEABLE)
        self.machine.ksm.scan(passes)

    @rule(who=who, places=places)
    def unmerge(self, who, places):
        for i in places:
            self.process(who).madvise(PLACES[i], PAGE, ksm.MADV_UNMERGEABLE)

    # After every rule

    @invariant()
    def nothing_is_wrong(self):
        if hasattr(self, "machine"):
            assert damage(self.machine) == []

    def bytes_of_slot(self, slot):
        """The bytes of a slot: those of the page in the swap cache if there is one, which the next fault maps."""
        fields = {name: ctypes.string_at(*field) for name, field in slot_fields(self.machine, slot).items()}
        page = int.from_bytes(fields["slot.page"], "little")
        if page:
            mem_map, size = machine_fields(self.machine)["mem_map"]
            frame = (page - mem_map) // size
            return self.view[frame * PAGE:(frame + 1) * PAGE]
        return fields["slot.bytes"] if fields["slot.zeromap"] == b"\0" else bytes(PAGE)

    @invariant()
    def bytes_are_what_was_written(self):
        for process, contents in getattr(self, "known", {}).items():
            for place, content in zip(PLACES, contents, strict=True):
                (word,) = process.page_table(place, PAGE)
                number = word >> ksm.PAGE_FLAGS_SHIFT
                if word & ksm.PAGE_SWAPPED:
                    assert self.bytes_of_slot(number) == content
                elif word:
                    assert self.view[number * PAGE:(number + 1) * PAGE] == content
                else:
                    assert content == bytes(PAGE)

    def teardown(self):
        if hasattr(self, "machine"):
            for process, contents in self.known.items():
                assert [process.read(place, PAGE) for place in PLACES] == contents
            self.view.release()
            finish(self.machine)


# The fast runs are the same every time, the long runs are new ones.
FAST = settings(max_examples=300, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None,
                derandomize=True, phases=(Phase.generate, Phase.shrink))
LONG = settings(FAST, max_examples=1000, stateful_step_count=60, derandomize=False, print_blob=True)

TestSwapping = Swapping.TestCase
TestSwapping.settings = FAST


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_long(part):
    class Test(Swapping.TestCase):
        settings = LONG

    Test().runTest()
