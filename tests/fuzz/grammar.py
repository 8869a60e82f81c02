# SPDX-License-Identifier: GPL-2.0-only
"""The actions, by kind, as data that JSON can have.

An action does not know the results of earlier ones. It says "the third mapping", and the player takes the third of the mappings that there
are. So actions can be dropped, and the rest still makes sense.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ksm
from fuzz import odd as odds
from fuzz.player import METHODS
from fuzz.roll import FIXED, RW, Roll
from fuzz.shadow import HEAP, LOWEST, PAGE
from fuzz.strange import NUMBERS, OBJECTS
from fuzz.world import BASE, HUGE

Action = list[Any]  # name, arguments, kind
Args = dict[str, Any]
SLABS = ["mm_struct", "vm_area_struct", "anon_vma", "anon_vma_chain", "ksm_rmap_item", "ksm_stable_node", "ksm_mm_slot"]
KNOBS: list[tuple[str, list[Any]]] = [
    ("use_zero_pages", [0, 1]), ("smart_scan", [0, 1]), ("merge_across_nodes", [0, 1]), ("max_page_sharing", [2, 3, 4, 7, 256]),
    ("stable_node_chains_prune_millisecs", [0, 2000]), ("run", ["2", "0", "2", 2]), ("pages_to_scan", [1, 100]),
    ("sleep_millisecs", [0, 20]), ("advisor_mode", ["none", "scan-time"]), ("advisor_target_scan_time", [1, 200]),
    ("advisor_max_cpu", [1, 70]), ("advisor_min_pages_to_scan", [1, 500]), ("advisor_max_pages_to_scan", [600, 30000]),
    ("full_scans", [0]), ("pages_shared", [0]), ("nothing", [0]),
]  # fmt: skip


# Memory


def mmap(r: Roll) -> Args:
    place = r.slot() if r.chance(0.5) else r.anywhere()
    return {"who": r.who(), "place": place, "length": r.length(1 << 34), "prot": r.prot(), "flags": r.flags(), "odd": r.odd(4)}


def munmap(r: Roll) -> Args:
    return {"who": r.who(), "place": r.anywhere(), "length": r.length(), "odd": r.odd(2)}


def mprotect(r: Roll) -> Args:
    return {"who": r.who(), "place": r.anywhere(), "length": r.length(), "prot": r.prot(), "odd": r.odd(3)}


def brk(r: Roll) -> Args:
    return {"who": r.who(), "end": r.choice([0, 1, PAGE, 3 * PAGE, 10 * PAGE, -1, -PAGE, 1 << 47, -HEAP]), "odd": r.odd(1)}


def madvise(r: Roll) -> Args:
    advice = r.choice([12, 12, 12, 13, 4, 4, 10, 11, 18, 19, 0, 14, 15, 21, -1])
    return {"who": r.who(), "place": r.anywhere(), "length": r.length(), "advice": advice, "odd": r.odd(3)}


def prctl(r: Roll) -> Args:
    return {"who": r.who(), "option": r.choice([67, 67, 67, 68, 0, -1]), "arg": r.choice([0, 1, 1, 2, 1 << 63]), "odd": r.odd(2)}


def mremap(r: Roll) -> Args:
    to: Any = (r.slot() if r.chance(0.7) else r.anywhere()) if r.chance(0.5) else None
    if r.chance(0.06):
        to = ["at", r.choice([0, 0, PAGE, LOWEST - PAGE])]
    place = r.place() if r.chance(0.97) else r.anywhere()
    flags = r.choice([1, 1, 1, 0, 0, r.choice([1, 1, 1, 1, 3, 4])])
    old = r.length(1 << 34)
    new = old if to is not None and r.chance(0.4) else r.length(1 << 34)
    return {"who": r.who(), "place": place, "old": old, "new": new, "flags": flags, "to": to, "odd": r.odd(4)}


def write(r: Roll, force: bool = False) -> Args:
    offset, size = r.extent()
    buffer = r.choice(odds.BUFFERS) if size >= PAGE and "odd" in r.kinds and r.chance(0.04) else None
    return {"who": r.who(), "place": r.anywhere(), "offset": offset, "length": size, "number": r.content(), "force": force, "kind": buffer,
            "odd": r.odd(1)}  # fmt: skip


def read(r: Roll) -> Args:
    offset, size = r.extent()
    if r.chance(0.01):
        size = r.any_length()
    return {"who": r.who(), "place": r.anywhere(), "offset": offset, "length": size, "force": r.chance(0.3), "odd": r.odd(2)}


def touch(r: Roll) -> Args:
    size = r.choice([1, 0, -1, 1, r.pages() * PAGE])
    return {
        "who": r.who(),
        "place": r.anywhere(),
        "offset": r.choice([0, 0, 1, 4095]),
        "length": size,
        "write": r.chance(0.6),
        "odd": r.odd(1),
    }


def update(r: Roll) -> Args:
    return {"who": r.who(), "place": r.anywhere(), "number": r.content(), "pages": r.choice([0, 1, 1, 2, 5]), "odd": r.odd(1)}


def settle(r: Roll) -> Args:
    pages = r.choice([2, 3, 8, 20, 40]) if not r.chance(0.1) else r.choice([70, 100, 700, 1600])
    return {
        "who": r.who(),
        "place": r.place(),
        "pages": pages,
        "kinds": r.randrange(1, 7),
        "passes": r.choice([1, 2, 3]),
    }


def image(r: Roll, keep: bool = False) -> Args:
    numbers = [r.content() for _ in range(r.choice([1, 2, 3, 6, 20]))]
    modes = ["file"] * 8 + ["fd", "fd", "closed", "negative", "huge", "text", "directory", "null", "writeonly"]
    if keep:
        return {
            "who": r.who(),
            "place": None,
            "numbers": numbers,
            "offset": 0,
            "length": None,
            "tail": 0,
            "node": 0,
            "mode": "file",
            "keep": True,
        }
    return {"who": r.who(), "place": None if r.chance(0.7) else r.anywhere(), "numbers": numbers,
            "offset": r.choice([0] * 6 + [PAGE, 1, len(numbers) * PAGE, 1 << 62]),
            "length": r.choice([None] * 5 + [PAGE, 0, 1, 1 << 62, 2 * PAGE]), "tail": r.choice([0] * 5 + [1, 4095]),
            "node": r.choice([0, 0, 0, 1, 7]), "mode": r.choice(modes), "odd": r.odd(3), "still": r.chance(0.3)}  # fmt: skip


def write_view(r: Roll) -> Args:
    offset, size = r.choice([0, 0, 8, 4000]), r.choice([1, 8, 4096, 96])
    return {"who": r.who(), "place": r.place(), "offset": offset, "length": size, "source": r.place(), "update": r.chance(0.4),
            "force": r.chance(0.3), "frame": r.chance(0.4)}  # fmt: skip


# Machines


def swap_out(r: Roll) -> Args:
    return {"who": r.who(), "place": r.anywhere(), "length": r.choice([1, PAGE, PAGE, r.pages() * PAGE, -PAGE, 0]), "odd": r.odd(1)}


def swapon(r: Roll) -> Args:
    sizes = ["64K", "400K", 65536, 4096, "4M", "64K"]
    return {
        "size": r.choice(sizes) if r.chance(0.6) else r.choice([0, -4096, 4097, 1 << 60, 1 << 70, "99999999999999999999T", None, "x", 1.0])
    }


def move_pages(r: Roll) -> Args:
    return {"who": r.who(), "place": r.anywhere(), "length": r.choice([1, PAGE, r.pages() * PAGE, 0, -1]), "node": r.randrange(3)}


def migrate(r: Roll) -> Args:
    return {"who": r.who(), "place": r.place(), "node": r.choice([None, 0, 1, 2]), "odd": r.odd(1)}


def offline(r: Roll) -> Args:
    if r.chance(0.3):
        return {"block": 0, "blocks": r.choice([1, 2, 3, 6, 20]), "who": r.who(), "place": r.place()}
    return {"block": r.randrange(5), "blocks": r.choice([512, 512, 512, 1024, 0, 1, 1 << 63])}


def online(r: Roll) -> Args:
    return {"block": r.randrange(5), "blocks": r.choice([512, 512, 512, 1024, 0])}


def fail(r: Roll) -> Args:
    return {"what": r.choice(["page", "page", "page", *SLABS, "nothing"]), "nth": r.choice([1, 1, 2, 3, 5, 0, -1]),
            "times": r.choice([1, 1, 2, 5, 0, 1 << 62])}  # fmt: skip


def knob(r: Roll) -> Args:
    name, values = r.choice(KNOBS)
    if r.chance(0.35):
        values = [r.choice(odds.TEXTS), r.choice(odds.NUMBERS), None, 1.5, [], True, False]
    return {"name": name, "value": r.choice(values)}


def scan(r: Roll) -> Args:
    if r.chance(0.4):
        return {"passes": None, "pages": r.choice([0, 1, 2, 5, 20])}
    return {"passes": r.choice([1, 1, 2, 3, None]), "pages": None}


def drain(r: Roll) -> Args:
    return {"what": r.choice(["lru_add_drain_all", "drain_all_pages"])}


def look(r: Roll) -> Args:
    return {"who": r.who(), "place": r.anywhere(), "length": r.length(1 << 36) if r.chance(0.98) else (1 << 64) - 1}


def trace(r: Roll) -> Args:
    numbers = [None, None, 1, 0, -1, 5, 64, 3000, 1 << 28, (1 << 28) + 1, 1.0, "1"]
    return {"what": r.choice(["start", "read", "read", "stop"]), "number": r.choice(numbers)}


def record(r: Roll) -> Args:
    return {"what": r.choice(["start", "note", "note", "stop", "data"]), "steps": r.choice([100, 1, 5000, 0, 1 << 40])}


def advance(r: Roll) -> Args:
    seconds = [0.0, 1.0, 2.5, 1e-9, -1.0, float("nan"), 1e9, float("inf"), "1", None]
    return {"seconds": r.choice(seconds), "ksmd": r.choice([0.0, 0.0, 0.5, -1.0, float("nan"), 1e300])}


def machine_argument(r: Roll) -> Any:
    name = r.choice(["memory", "nodes", "max_memory", "swap", "clock", "transparent_hugepage", "era", "plain"])
    if name in ("clock", "transparent_hugepage", "era"):
        return [name, r.choice(["", "real", "Never", "6.12 ", "2.6.39", 5])]
    if r.chance(0.4) and name != "nodes":
        return [name, r.choice(odds.SIZES)]
    if r.chance(0.5):
        return [name, odds.stranger(r)]
    return [name, ["value", r.choice(odds.NUMBERS)] if r.chance(0.6) else ["calls", ["look"]]]


def half_made(r: Roll) -> Args:
    return {"method": r.randrange(40), "within": r.choice(["", "memory", "nodes", "swap", "max_memory"])}


def source(r: Roll) -> Args:
    return {"kind": r.choice(["core", "core", "image"]), "seed": r.randrange(1 << 30)}


def os_fork(r: Roll) -> Args:
    return {"how": r.choice(["os", "os", "os", "preexec", "multiprocessing"]),
            "then": r.choice(["use", "use and close", "close", "collect", "leave", "nothing"])}  # fmt: skip


def stray(r: Roll) -> Args:
    method = r.choice(METHODS)
    addr = BASE + r.randrange(64) * PAGE if r.chance(0.8) else r.choice(odds.NUMBERS) % (1 << 64)
    size = r.choice([0, 1, PAGE, PAGE, 4 * PAGE, 16 * PAGE, 700 * PAGE])
    where = [addr, size]
    args: list[int] = {
        "mmap": [size, r.randrange(8), ksm.MAP_ANONYMOUS | r.choice([1, 2, 2 | 16, 1 | 16, 2 | 0x100000]), addr],
        "mprotect": [*where, r.randrange(8)], "mremap": [*where, r.choice([0, PAGE, 4 * PAGE, 600 * PAGE]), r.choice([0, 1])],
        "madvise": [*where, r.choice([4, 10, 11, 12, 13, 14, 15, 18, 19, 21])], "brk": [r.choice([0, HEAP + size, addr])],
        "prctl": [67, r.randrange(2)], "move_pages": [*where, 0], "write": [addr, r.randrange(9)], "force": [addr, r.randrange(9)],
        "update": [addr, r.randrange(9)], "migrate": [r.randrange(600)], "memory_failure": [r.randrange(600)],
        "offline": [512 * r.randrange(5), 512], "online": [512 * r.randrange(5), 512],
    }.get(method, where)  # fmt: skip
    wild: list[Any] | None = [r.randrange(len(args)), odds.wild_spec(r)] if "odd" in r.kinds and r.chance(0.35) else None
    if wild is not None and method in ("page_table", "move_pages", "swap_out", "touch") and wild[1][0] in ("liar", "value"):
        wild[1] = ["unprintable"]  # another length could take for ever, which is not a fault
    return {"who": r.randrange(64), "method": method, "args": args, "odd": wild}


Make = Callable[[Roll], Args]
ACTIONS: dict[str, list[tuple[str, float, Make]]] = {
    "map": [("mmap", 3, mmap), ("munmap", 2, munmap), ("mprotect", 3, mprotect), ("brk", 1.5, brk)],
    "bytes": [("write", 9, write), ("read", 5, read), ("touch", 2, touch), ("update", 2, update)],
    "advice": [("madvise", 6, madvise), ("prctl", 1, prctl)],
    "ksm": [("settle", 3, settle), ("scan", 5, scan), ("drain", 1.5, drain)],
    "processes": [("spawn", 1, lambda r: {"node": r.randrange(3)}), ("fork", 3, lambda r: {"who": r.who()}),
                  ("exit", 1.5, lambda r: {"who": r.who()}), ("exec", 0.7, lambda r: {"who": r.who(), "named": r.chance(0.3)})],
    "force": [("write", 6, lambda r: write(r, True))],
    "swap": [("swap_out", 9, swap_out), ("swapon", 2, swapon), ("swapoff", 0.7, lambda r: {})],
    "mremap": [("mremap", 4, mremap)],
    "migrate": [("move_pages", 3, move_pages), ("migrate", 3, migrate)],
    "hotplug": [("offline", 3, offline), ("online", 2, online)],
    "memory-failure": [("memory_failure", 1, lambda r: {"who": r.who(), "place": r.place(), "odd": r.odd(1)})],
    "fail": [("fail", 5, fail)],
    "pin": [("pin", 2, lambda r: {"who": r.who(), "place": r.place()})],
    "sysfs": [("knob", 4, knob), ("batch_of_files", 0.5, lambda r: {})],
    "image": [("image", 1.5, image),
              ("lying_image", 0.3, lambda r: {"offset": r.choice([0, PAGE]), "length": r.choice([PAGE, 9 * PAGE, 0])}),
              ("cut_image", 0.3, lambda r: {"pages": r.choice([2, 3, 20, 300]), "left": r.choice([0, 1, PAGE, PAGE + 1, 5 * PAGE]),
                                            "still": r.chance(0.5)})],
    "image-change": [("change_image", 1, lambda r: {"numbers": [r.content() for _ in range(3)]})],
    "view": [("view", 1, lambda r: {"release": r.chance(0.6)}),
             ("frame", 1.5, lambda r: {"who": r.who(), "place": r.place(), "odd": r.odd(1)}),
             ("close_with_view", 0.4, lambda r: {}), ("write_view", 1, write_view)],
    "look": [("look", 1.5, look)],
    "trace": [("trace", 2, trace)],
    "record": [("record", 1, record)],
    "clock": [("advance", 1, advance), ("advance", 0.7, lambda r: {"seconds": r.choice([9e8, 999999999.0]), "ksmd": 0.0})],
    "stray": [("stray", 6, stray)],
    "litter": [("litter", 0.7, lambda r: {"number": r.randrange(2, 30)})],
    "machines": [("again", 1, lambda r: {"odd": machine_argument(r)}), ("init_again", 0.2, lambda r: {})],
    "half-made": [("half_made", 0.7, half_made)],
    "names": [("bad_name", 0.5, lambda r: {"what": r.choice(["spawn", "fork", "exec"]), "who": r.who()})],
    "objects": [("odd_object", 1, lambda r: {"what": r.choice(list(OBJECTS))}),
                ("any_number", 0.3, lambda r: {"what": r.choice(list(NUMBERS))})],
    "sources": [("wild_tally", 0.3, lambda r: {"seed": r.randrange(1 << 30)}), ("source", 0.5, source)],
    "huge": [("hugepage_mode", 0.5, lambda r: {"mode": r.choice(["always", "always", "madvise", "never", "x", None, 5])})],
    "close": [("close", 0.05, lambda r: {})],
    "os-fork": [("os_fork", 1, os_fork)],
}  # fmt: skip
# Kinds that move pages about: more lives have them
DEEP = {"swap", "force", "processes", "mremap", "migrate", "advice", "huge"}


def make_actions(r: Roll, number: int, kinds: list[str]) -> list[Action]:
    """Random actions of these kinds. Each kind has a weight of its own."""
    r.begin(kinds)
    table = []
    for kind in kinds:
        share = r.choice([0.3, 1, 1, 3])
        table += [(kind, name, weight * share, make) for name, weight, make in ACTIONS.get(kind, [])]
    weights = [each[2] for each in table]
    actions: list[Action] = []
    while len(actions) < number:
        kind, name, _weight, make = r.choices(table, weights)[0]
        args = make(r)
        actions.append([name, args, kind])
        if name == "exec":
            actions.append(["mmap", {"who": args["who"], "place": ["slot", 0], "length": 40 * PAGE, "prot": RW, "flags": FIXED}, kind])
        if name == "mmap" and r.chance(0.5):
            actions.append(["write", {"who": args["who"], "place": args["place"], **one(r, r.choice([1, 5, 40]))}, "bytes"])
        if r.chance(0.1):
            actions += history(r, kinds)
        if r.huge and r.chance(0.04):
            actions += huge_page(r)
        if "image-change" in kinds and r.chance(0.02):
            actions += changed_image(r)
    return actions


def one(r: Roll, pages: int = 1) -> Args:
    """Arguments for writing whole pages."""
    return {"offset": 0, "length": pages * PAGE, "number": r.content(), "force": False}


def history(r: Roll, kinds: list[str]) -> list[Action]:
    """Actions on one page: it goes away, comes back, changes, and goes away again, each in a random way."""
    at: Args = {"who": r.who(), "place": r.place()}
    reading = {"offset": 0, "length": 1, "force": r.chance(0.5)}
    writing = {**one(r), "offset": r.choice([0, 0, 4095, 100]), "length": r.choice([PAGE, 1])}
    away: dict[str, list[tuple[str, Args]]] = {
        "swap": [("swap_out", {**at, "length": PAGE})], "migrate": [("move_pages", {**at, "length": PAGE, "node": r.randrange(3)})],
        "ksm": [("madvise", {**at, "length": r.choice([PAGE, 4 * PAGE]), "advice": 12}), ("scan", {"passes": 2, "pages": None})],
        "processes": [("fork", {"who": at["who"]})], "advice": [("madvise", {**at, "length": PAGE, "advice": r.choice([4, 13])})],
        "mremap": [("mremap", {**at, "old": PAGE, "new": 2 * PAGE, "flags": 1, "to": None})],
        "hotplug": [("offline", {"block": r.randrange(1, 4), "blocks": 512})],
    }  # fmt: skip
    back: dict[str, list[tuple[str, Args]]] = {
        "bytes": [("read", {**at, **reading})], "swap": [("swapoff", {}), ("swapon", {"size": "400K"})],
        "ksm": [("scan", {"passes": 1, "pages": None})], "map": [("mprotect", {**at, "length": PAGE, "prot": r.choice([1, RW])})],
    }  # fmt: skip
    change: dict[str, list[tuple[str, Args]]] = {
        "bytes": [("write", {**at, **writing})], "force": [("write", {**at, **writing, "force": True})],
        "map": [("update", {**at, "number": r.content(), "pages": 1})],
    }  # fmt: skip
    actions: list[Action] = [["write", {**at, **one(r)}, "bytes"]]
    first = r.choice([kind for kind in away if kind in kinds])
    for number, ways in enumerate((away, back, change, away, back)):
        kind = r.choice([each for each in ways if each in kinds])
        if ways is away and (number == 0 or r.chance(0.5)):
            kind = first
        elif ways is back and r.chance(0.4):
            kind = "bytes"
        actions += [[name, args, kind] for name, args in ways[kind]]
    actions.append(["read", {**at, **reading, "length": PAGE}, "bytes"])
    return actions


def huge_page(r: Roll) -> list[Action]:
    """Room for huge pages, and a write that may bring one."""
    at: Args = {"who": r.who(), "place": ["room", r.randrange(4)]}
    pages = r.choice([512, 512, 1024, 1100])
    inside = {**at, "offset": r.randrange(pages) * PAGE}
    actions: list[tuple[str, Args]] = [
        ("mmap", {**at, "length": pages * PAGE, "prot": RW, "flags": FIXED}), ("madvise", {**at, "length": pages * PAGE, "advice": 14}),
        ("write", {**inside, "length": PAGE, "number": r.content(), "force": False}),
    ]  # fmt: skip
    more: list[tuple[str, Args]] = [
        ("fork", {"who": at["who"]}), ("mprotect", {**at, "length": pages * PAGE, "prot": r.choice([1, RW])}),
        ("madvise", {**at, "length": HUGE, "advice": r.choice([4, 12])}), ("munmap", {**at, "length": r.choice([HUGE, 5 * PAGE])}),
        ("mremap", {**at, "old": HUGE, "new": HUGE, "flags": 1, "to": r.choice([["room", r.randrange(4)], r.slot()])}),
        ("swap_out", {**at, "length": r.choice([PAGE, HUGE])}), ("touch", {**inside, "length": 1, "write": r.chance(0.5)}),
        ("migrate", {**at, "node": None}), ("write", {**inside, "length": 1, "number": r.content(), "force": r.chance(0.3)}),
    ]  # fmt: skip
    actions += r.sample(more, r.randrange(1, 6))
    return [[name, args, "huge" if name != "write" or not args["force"] else "force"] for name, args in actions]


def changed_image(r: Roll) -> list[Action]:
    """An image is merged with pages that a process has written, and then its file is written to."""
    made = image(r, True)
    size = len(made["numbers"]) * PAGE
    place = r.slot()
    merge = {"length": size, "advice": 12}
    actions: list[tuple[str, Args]] = [("image", made), ("madvise", {"who": made["who"], "place": ["image"], **merge})]
    other = {"who": made["who"] + 1, "place": place}
    actions.append(("mmap", {**other, "length": size, "prot": RW, "flags": FIXED}))
    for index, number in enumerate(made["numbers"]):
        where = {"who": other["who"], "place": ["slot", place[1] + index]}
        actions.append(("write", {**where, "offset": 0, "length": PAGE, "number": number, "force": False}))
    actions += [("madvise", {**other, **merge}), ("scan", {"passes": 3, "pages": None}),
                ("change_image", {"numbers": [r.content() for _ in range(3)]})]  # fmt: skip
    return [[name, args, "image-change"] for name, args in actions]
