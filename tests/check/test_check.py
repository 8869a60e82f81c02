# SPDX-License-Identifier: GPL-2.0-only
"""Machine.check() finds every kind of damage: one field at a time is overwritten, and the finding must name it."""

import ctypes
import re

import pytest

import ksm
from ksm.testing.corrupt import frame_fields, machine_fields, page_fields

from .damage import damaged, flip, plus

PAGE = ksm.PAGE_SIZE
# Pages of the process by what becomes of them. A, D: two pages at a node each; B: two nodes of three pages in a chain, and a page that is
# left over; U, V: in the unstable tree, like that page; Z: KSM's zero page
LAYOUT = "AABBBBBBBDDUVZ"
A, B, D, U, V, Z = (LAYOUT.index(name) for name in "ABDUVZ")
READ, PLAIN, SHARED = 15, 16, 17
BASE = 0x100000


class Scene:
    def __init__(self):
        self.machine = machine = ksm.Machine(memory="16M", max_memory="16M")
        knobs = machine.ksm
        knobs.max_page_sharing = 3
        knobs.smart_scan = 0
        knobs.use_zero_pages = 1
        self.process = process = machine.spawn()
        flags = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED
        process.mmap(16 * PAGE, addr=BASE, flags=flags)
        process.mmap(PAGE, addr=self.place(PLAIN), flags=flags, prot=ksm.PROT_READ | ksm.PROT_WRITE)
        process.mmap(PAGE, addr=self.place(SHARED), flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED)
        process.madvise(BASE, 16 * PAGE, ksm.MADV_MERGEABLE)
        for i, name in enumerate(LAYOUT):
            process.write(self.place(i), bytes(PAGE) if name == "Z" else name.encode() * PAGE)
        process.read(self.place(READ), 1)
        process.write(self.place(PLAIN), b"plain")
        process.write(self.place(SHARED), b"shared")
        machine.ksm.scan(4)
        machine.spawn().exit()
        process.write(process.mmap(3 * PAGE), b"x" * 3 * PAGE)
        unused = process.mmap(40 * PAGE)
        process.write(unused, b"y" * 40 * PAGE)
        knobs.scan(pages=len(LAYOUT) - 1)       # the cursor stands behind V
        process.munmap(unused, 40 * PAGE)       # frames freed a moment ago
        process.write(process.mmap(3 * PAGE), b"x" * 3 * PAGE)      # in the LRU batch
        assert machine.check() == []

    @staticmethod
    def place(page):
        return BASE + page * PAGE

    def fields(self, page):
        found = machine_fields(self.machine)
        if page is not None:
            found.update(page_fields(self.machine, 1, self.place(page)))
            found["plain.anon_vma"] = page_fields(self.machine, 1, self.place(PLAIN))["anon_vma"]
        return found

    def damage(self, page, name, value):
        return damaged(self.machine, self.fields(page), name, value)


@pytest.fixture(scope="module")
def scene():
    scene = Scene()
    yield scene
    scene.machine.close()


def address_of(name, offset=0):
    return lambda old, fields: fields[name].address + offset


DAMAGE = {
    # Trees (1), and the order of what they hold (2, 3)
    "node parent": (A, "node.rb_parent", plus(64), r"stable tree 0: a node does not name|red"),
    "node colour": (A, "node.rb_parent", flip(1), r"stable tree 0: (the root is red|a red node|two ways)"),
    "stable pages out of order": (A, "page.bytes", lambda old, fields: old | 0xFF, r"stable tree 0: pages \d+ and \d+ are out of order"),
    "stable pages equal": (A, "page.bytes", lambda old, fields: int.from_bytes(b"B" * PAGE, "little"), r"are equal"),
    "unstable parent": (U, "item.rb_parent", plus(64), r"unstable tree 0: "),
    "unstable colour": (U, "item.rb_parent", flip(1), r"unstable tree 0: |unstable trees: "),
    # Keys (4)
    "key of another node": (A, "page.mapping", plus(64), r"merged, and (names 0x\w+, which is no stable node|its stable node is that of)"),
    "key of an item": (A, "page.mapping", lambda old, fields: fields["item"].address | 3, r"merged, and names .* no stable node"),
    "kpfn": (A, "node.kpfn", plus(1), r"frame \d+: merged, and its stable node is that of pfn"),
    "kpfn far away": (A, "node.kpfn", 1 << 40, r"stable node 0x\w+: pfn 1099511627776 of"),
    # Chains (5)
    "chain length": (B, "chain.len", 0, r"stable_node_chains: 1, counted 0"),
    "dup tag": (B, "node.head", plus(16), r"chain .*: dup of pfn \d+ has head"),
    "dup link": (B, "node.dup_pprev", plus(8), r"chain .*: dup of pfn \d+ is not linked back"),
    "dup bytes": (B, "page.bytes", flip(1 << (8 * PAGE - 1)), r"chain .*: pages \d+ and \d+ differ"),
    "dup nid": (B, "node.nid", 1, r"stable node of pfn \d+: nid 1, in the tree of 0"),
    "dups": (None, "dups", plus(1), r"stable_node_dups: 3, counted 2"),
    "chains": (None, "chains", plus(1), r"stable_node_chains: 2, counted 1"),
    "dups cut off": (B, "chain.first", 0, r"stable_node_dups: 2, counted 0"),
    # Trees of nodes (6)
    "node nid": (A, "node.nid", 1, r"stable node of pfn \d+: nid 1, in the tree of 0"),
    # rmap_items at nodes (7, 16)
    "node length": (A, "node.len", plus(1), r"stable node of pfn \d+: 2 rmap_items, and says 3"),
    "node length negative": (A, "node.len", -7, r"length -7"),
    "item head": (A, "item.head", address_of("node", 64), r"rmap_item of 0x100000 names node|which is no stable node"),
    "item flags": (A, "item.address", flip(0x100), r"has flags 0x300"),
    "item flag lost": (A, "item.address", flip(0x200), r"rmap_item of 0x100000 has flags 0, not 0x200"),
    "item anon_vma": (A, "item.anon_vma", 0, r"rmap_item of 0x100000 has anon_vma"),
    "item link": (A, "item.pprev", plus(8), r"rmap_item of 0x100200 is not linked back"),
    "items cut off": (A, "node.first", 0, r"stable node of pfn \d+: 0 rmap_items, and says 2"),
    "too many sharers": (None, "max_page_sharing", 2, r"3 sharers, allowed are 2"),
    # Unstable items (8)
    "age": (None, "scan.seqnr", plus(2), r"passes old in the unstable tree"),
    "pass number": (U, "item.address", plus(-1), r"unstable tree 0: rmap_item of 0x10b000 has flags 0x10[0-9a-f]+, not those of pass"),
    "unstable flag": (U, "item.address", flip(0x100), r"pages_unshared: 3, counted 2"),
    "unstable nid": (U, "item.nid", 3, r"unstable tree 0: rmap_item of 0x10b000 has nid 3"),
    "unstable tree emptied": (None, "unstable_root", 0, r"unstable trees: 0 nodes, and 3 rmap_items of this pass"),
    "odd flags": (U, "item.address", flip(0x500), r"rmap_item of 0x10b000 has flags 0x4"),
    # Lists of items, and the cursor (9)
    "items not ascending": (V, "item.address", plus(-PAGE), r"rmap_item of 0x10b000 behind that of 0x10b000"),
    "items in a ring": (V, "item.rmap_list", address_of("item"), r"rmap_item of 0x10c000 behind that of 0x10c000"),
    "item of another mm": (V, "item.mm", plus(64), r"rmap_item of 0x10c000 names mm"),
    "item is no item": (V, "item.rmap_list", 0x6B6B6B6B6B6B6B6B, r"rmap_item 0x6b6b6b6b6b6b6b6b is not an object"),
    "cursor link": (None, "scan.rmap_list", plus(64), r"the cursor's rmap_list .* is not in its list"),
    "cursor address": (None, "scan.address", BASE + PAGE, r"rmap_item of 0x101000 before the cursor, which is at 0x101000"),
    "cursor slot": (None, "scan.mm_slot", plus(64), r"the cursor is at slot .*, which is not in the list"),
    # Counters (10)
    "pages_shared": (None, "pages_shared", plus(1), r"pages_shared: 5, counted 4"),
    "pages_sharing": (None, "pages_sharing", plus(-1), r"pages_sharing: 5, counted 6"),
    "pages_unshared": (None, "pages_unshared", plus(1), r"pages_unshared: 4, counted 3"),
    "pages_unshared, many": (None, "pages_unshared", 1000, r"pages_volatile: negative"),
    "rmap_items": (None, "rmap_items", plus(1), r"ksm_rmap_items: 14, counted 13"),
    "merging pages of the mm": (A, "mm.merging_pages", plus(1), r"mm 1: ksm_merging_pages 11, counted 10"),
    "items of the mm": (A, "mm.rmap_items", plus(1), r"mm 1: ksm_rmap_items 14, counted 13"),
    # Zero pages (11)
    "zero pages": (None, "zero_pages", plus(1), r"ksm_zero_pages: 2, those of all mms are 1"),
    "zero pages of the mm": (A, "mm.zero_pages", plus(1), r"mm 1: ksm_zero_pages 2, counted 1"),
    "zero page, counted as KSM's": (READ, "pte", flip(0x40), r"mm 1: ksm_zero_pages 1, counted 2"),
    "zero page bytes": (Z, "page.bytes", plus(1), r"the zero page is not all zeros"),
    "zero page bytes at the end": (Z, "page.bytes", flip(1 << (8 * PAGE - 1)), r"the zero page is not all zeros"),
    "zero page mapped": (Z, "page.mapcount", 0, r"the zero page: refcount 1, mapcount 1"),
    # Entries (12)
    "merged page writable": (A, "pte", flip(0x2), r"at 0x100000 merged page \d+, by a writable entry"),
    "merged page dirty": (A, "pte", flip(0x40), r"at 0x100000 merged page \d+, by a dirty entry"),
    "merged page special": (A, "pte", flip(0x200), r"at 0x100000 page \d+, by a special entry"),
    "merged page not present": (A, "pte", flip(0x1), r"at 0x100000 an entry that is not present"),
    "merged page exclusive": (A, "page.flags", flip(0x400), r"at 0x100000 merged page \d+, which is exclusive"),
    "merged page in a vma that is not": (A, "vma.flags", flip(1 << 31), r"merged page \d+, in a vma that is not mergeable"),
    "zero page in a vma that is not": (Z, "vma.flags", flip(1 << 31), r"KSM's zero page, in a vma that is not mergeable"),
    "zero page writable": (Z, "pte", flip(0x2), r"the zero page, by an entry that is not special or that is writable"),
    "zero page not special": (Z, "pte", flip(0x200), r"the zero page, by an entry that is not special or that is writable"),
    "writable in a vma that is not": (PLAIN, "vma.flags", flip(0x2), r"at 0x110000 page \d+ is writable, its vma is not"),
    "writable, not exclusive": (PLAIN, "page.flags", flip(0x400), r"at 0x110000 page \d+ is writable and not exclusive"),
    "frame that is not there": (PLAIN, "pte", lambda old, fields: old | 1 << 40, r"at 0x110000 frame \d+ of 4096"),
    "anonymous page without anon_vma": (PLAIN, "page.mapping", 0, r"neither anonymous nor page 0x\w+ of a shared object"),
    "index": (PLAIN, "page.index", plus(1), r"at 0x110000 page \d+ has index 0x111, the place has 0x110"),
    "page of a foreign anon_vma": (PLAIN, "page.mapping", plus(64), r"at 0x110000 page \d+ names anon_vma"),
    "shared object's page": (SHARED, "file.pages", 0, r"frame \d+: refcount 2, explained 1"),
    "shared object's count": (SHARED, "file.f_count", plus(1), r"shared object .*: f_count 2, mapped 1 times"),
    "shared flag": (SHARED, "vma.flags", flip(0x8), r"has shared object"),
    # Frames (13)
    "mapcount": (A, "page.mapcount", plus(1), r"frame \d+: mapcount 3, counted 2"),
    "refcount": (A, "page.refcount", plus(1), r"frame \d+: refcount 3, explained 2: 2 mappings, 0 other"),
    "refcount too low": (PLAIN, "page.refcount", 0, r"frame \d+: no references, and on no free list"),
    "exclusive and shared": (A, "page.flags", flip(0x400), r"frame \d+: exclusive, and mapped 2 times"),
    "locked": (PLAIN, "page.flags", flip(0x1), r"frame \d+: in use, and locked"),
    "node of the frame": (PLAIN, "page.flags", flip(1 << 24), r"frame \d+: on node 0, flags 0x1"),
    "mapping dropped": (PLAIN, "pte", 0, r"frame \d+: mapcount 1, counted 0"),
    "free count": (None, "zone.nr_free", plus(1), r"node 0: nr_free \d+, counted \d+"),
    "free frame lost": (None, "zone.nr_recent", plus(-1), r"frame \d+: no references, and on no free list"),
    "free frame twice": (None, "zone.recent", lambda old, fields: ctypes.c_uint.from_address(fields["zone.recent"].address + 4).value,
                         r"node 0: frame \d+ among those freed a moment ago"),
    "batch": (None, "nr_lru_add", plus(-1), r"frame \d+: refcount 2, explained 1"),
    "fresh frames in use": (None, "zone.fresh_pfn", 4, r"frame \d+: in use, and never handed out"),
    # What leads back (14)
    "item of a foreign anon_vma": (A, "item.anon_vma", address_of("plain.anon_vma"), r"whose rmap_item names anon_vma"),
    "item of a foreign anon_vma, counts": (A, "item.anon_vma", address_of("plain.anon_vma"), r"refcount 1, explained 2"),
    # anon_vmas and slots (15)
    "anon_vma refcount": (A, "anon_vma.refcount", plus(1), r"anon_vma .*: refcount 12, explained 11: 1 vmas, 10 rmap_items"),
    "anon_vma active": (A, "anon_vma.num_active_vmas", plus(1), r"num_active_vmas 2, counted 1"),
    "anon_vma children": (A, "anon_vma.num_children", plus(1), r"num_children 2, counted 1"),
    "anon_vma tree": (A, "anon_vma.rb_root", 0, r"anon_vma .*: 0 vmas in its tree, 1 are linked to it"),
    "avc vma": (A, "avc.vma", plus(64), r"has a bad link"),
    "avc anon_vma": (A, "avc.anon_vma", 8, r"has a bad link"),
    "vma anon_vma": (A, "vma.anon_vma", plus(64), r"is not linked to its anon_vma"),
    "mm_count": (A, "mm.mm_count", plus(1), r"mm 1: mm_count 3, explained 2"),
    "registered flag": (A, "mm.flags", flip(1 << 16), r"mm 1: 1 slots, and MMF_VM_MERGEABLE is 0"),
    "slot mm": (A, "slot.mm", plus(64), r"slot .*: its mm .* does not exist"),
    "slot not in the hash": (A, "slot.bucket", 0, r"mm 1: its slot .* is not in the hash"),
    "hash and list": (A, "slot.bucket", 0, r"slots: 1 in the list, 0 in the hash"),
    "slot without items": (A, "slot.rmap_list", 0, r"mm 1: ksm_rmap_items 13, counted 0"),
    # Counts of the mm (17), and what else an mm says of itself
    "rss": (A, "mm.anon", plus(1), r"mm 1: 21 anonymous pages, counted 20"),
    "rss, shared": (A, "mm.shmem", plus(1), r"mm 1: 2 shared pages, counted 1"),
    "total_vm": (A, "mm.total_vm", plus(1), r"mm 1: total_vm \d+, counted \d+"),
    "page tables": (A, "mm.nr_page_tables", plus(1), r"mm 1: \d+ page tables, counted \d+"),
    "table locked": (A, "table.locked", 1, r"mm 1: the page table of 0 is locked"),
    "vma start": (PLAIN, "vma.start", BASE, r"mm 1: vma 0x100000-0x111000 behind one that ends at 0x110000"),
    "vma mm": (A, "vma.mm", plus(64), r"mm 1: vma 0x100000-0x110000 names mm"),
    "vma prot": (PLAIN, "vma.page_prot", flip(0x2), r"has vm_page_prot"),
    "entry outside": (PLAIN, "vma.start", BASE + 17 * PAGE, r"at 0x110000 an entry outside of all vmas"),
    # Objects that are nowhere
    **{f"lost {name}": (None, f"cache.{name}", plus(1), rf"{name}: \d+ objects, found \d+")
       for name in ("mm_struct", "vm_area_struct", "anon_vma", "anon_vma_chain", "page_table", "rmap_item", "stable_node", "mm_slot")},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(scene, name):
    page, field, value, expected = DAMAGE[name]
    findings = scene.damage(page, field, value)
    assert any(re.search(expected, line) for line in findings), findings


def test_free_frame_with_a_key(scene):
    """A free frame must not keep the key of its last use."""
    recent = machine_fields(scene.machine)["zone.recent"].address
    pfn = ctypes.c_uint.from_address(recent).value
    fields = frame_fields(scene.machine, pfn)
    for name, value in (("page.mapping", 3), ("page.refcount", 1), ("page.flags", 0x4)):
        address, size = fields[name]
        old = ctypes.string_at(address, size)
        ctypes.memmove(address, value.to_bytes(size, "little"), size)
        findings = scene.machine.check()
        ctypes.memmove(address, old, size)
        assert any(line.startswith(f"frame {pfn}: free, and has refcount") for line in findings), (name, findings)
    assert scene.machine.check() == []


def test_many_findings_are_cut_short(scene):
    """A page that is mapped by thousands of wrong entries does not fill the memory with text."""
    machine = scene.machine
    process = machine.spawn()
    start = process.mmap(300 * PAGE)
    process.read(start, 300 * PAGE)
    ctypes.c_ubyte.from_address(machine_fields(machine)["arena"].address).value = 1
    fields = page_fields(machine, 3, start)
    flags = ctypes.c_ulong.from_address(fields["mm.flags"].address)
    table = (ctypes.c_ulong * 300).from_address(fields["pte"].address)
    saved = list(table)
    for i in range(212):
        table[i] ^= 0x2
    findings = machine.check()
    for i in range(300):
        table[i] = saved[i]
    ctypes.c_ubyte.from_address(machine_fields(machine)["arena"].address).value = 0
    assert flags.value == 0
    assert len(findings) == 201
    assert findings[-1] == "and 13 more"
    process.exit()
    assert machine.check() == []


def test_uncovered_mapping_is_legal_only_after_fork():
    """No rmap_item leads to an entry: that is legal in a forked child, and in no other process."""
    with ksm.Machine(memory="16M", max_memory="16M") as machine:
        parent = machine.spawn()
        start = parent.mmap(2 * PAGE)
        parent.write(start, b"same" * (PAGE // 2))
        parent.madvise(start, 2 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        child = parent.fork()
        parent.munmap(start, 2 * PAGE)
        assert machine.check() == []
        machine.ksm.scan()
        assert machine.check() == []
        assert child.ksm_merging_pages == 2
        child.exit()
        parent.exit()
        machine.ksm.scan()
        assert machine.check() == []

        other = machine.spawn()
        start = other.mmap(2 * PAGE)
        other.write(start, b"same" * (PAGE // 2))
        other.madvise(start, 2 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        fields = page_fields(machine, 3, start)
        item = ctypes.c_ulong.from_address(fields["item.address"].address)
        old, item.value = item.value, start + 9 * PAGE + 0x200
        findings = machine.check()
        item.value = old
        assert any(re.search(rf"at {start:#x} merged page \d+, to which no rmap_item of its node leads", line) for line in findings)


def test_stale_node_is_legal(scene):
    """The page of a stable node may be gone: the frame does not name the node any more, and the node waits for ksmd."""
    address, size = scene.fields(A)["page.mapping"]
    old = ctypes.string_at(address, size)
    ctypes.memmove(address, (3).to_bytes(size, "little"), size)
    findings = scene.machine.check()
    ctypes.memmove(address, old, size)
    assert findings == []


def test_closed_machine():
    machine = ksm.Machine(memory="1M", max_memory="1M")
    machine.close()
    with pytest.raises(ValueError, match="closed"):
        machine.check()


def test_while_ksmd_runs():
    """The checker holds ksmd, and finds nothing wrong between its batches."""
    with ksm.Machine(memory="16M", max_memory="16M") as machine:
        process = machine.spawn()
        start = process.mmap(400 * PAGE)
        process.write(start, b"".join(bytes([i % 60]) * PAGE for i in range(400)))
        process.madvise(start, 400 * PAGE, ksm.MADV_MERGEABLE)
        knobs = machine.ksm
        knobs.sleep_millisecs = 0
        knobs.max_page_sharing = 3
        knobs.pages_to_scan = 7
        knobs.run = 1
        for i in range(200):
            process.write(start + i * PAGE, bytes([i % 50]))
            assert machine.check() == []
        knobs.run = 2
        assert machine.check() == []


# Huge pages: (which part, the field, its value, what is found)
HUGE = {
    "a head that is none": (0, "page.flags", flip(0x100), r"a middle entry of frame 512|part of a huge page"),
    "a second head": (7, "page.flags", flip(0x300), r"frame 519: part of a huge page"),
    "a tail that is none": (7, "page.flags", flip(0x200), r"frame 519"),
    "a tail with a reference": (7, "page.refcount", 1, r"frame 519: a tail, and has refcount 1"),
    "a tail with a mapping": (7, "page.mapping", 1, r"frame 519: a tail, and has refcount 0, mapping"),
    "a tail mapped": (7, "page.mapcount", plus(1), r"frame 519: mapcount \d+, counted"),
    "references": (0, "page.refcount", plus(1), r"frame 512: refcount \d+, explained"),
    "mappings": (1, "page.index", plus(1), r"frame 512: huge, mapped \d+ times"),
    "whole mappings": (2, "page.index", plus(1), r"frame 512: huge, mapped \d+ times"),
    "index": (0, "page.index", plus(1), r"page 512 has index"),
    "anon_vma": (0, "page.mapping", plus(64), r"page 512 names anon_vma"),
    "exclusive as a whole": (0, "page.flags", flip(0x400), r"frame 512: exclusive, and mapped|huge page 512 is writable"),
    "exclusive in part": (7, "page.flags", flip(0x400), r"frame 519: a part that is exclusive|page 519 is writable and not exclusive"),
    "locked": (0, "page.flags", flip(0x1), r"frame 512: in use, and locked"),
}


@pytest.mark.parametrize("shared", ["whole", "whole and in parts", "in parts", "not"])
def test_damaged_huge_pages(shared):
    """Two processes map a huge page, each by one middle entry or by 512 small ones; or one process maps it alone."""
    with ksm.Machine(memory="8M", max_memory="8M", transparent_hugepage="always") as machine:
        process = machine.spawn()
        addr = process.mmap(512 * PAGE)
        process.write(addr, b"huge")
        if shared != "not":
            child = process.fork()
        if shared in ("in parts", "whole and in parts"):
            child.mprotect(addr + 100 * PAGE, PAGE, ksm.PROT_READ)
        if shared == "in parts":
            process.mprotect(addr + 200 * PAGE, PAGE, ksm.PROT_READ)
        assert machine.check() == []
        for name, (part, field, value, pattern) in HUGE.items():
            if shared == "not" and name == "exclusive in part":
                continue            # the head's flag counts
            found = damaged(machine, frame_fields(machine, 512 + part), field, value)
            assert any(re.search(pattern, line) for line in found), (name, found)
        assert machine.check() == []
