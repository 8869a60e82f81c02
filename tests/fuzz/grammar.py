# SPDX-License-Identifier: GPL-2.0-only
"""From a seed to a life: which machine, which kinds of actions how often, and the actions, as data that JSON can have.

An action does not know what the ones before it came to: it says "the third mapping", and who carries it out takes the third of those there
are. So actions can be dropped, and the rest still means something.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import ksm
from fuzz import odd as odds
from fuzz.player import METHODS
from fuzz.shadow import LOWEST, PAGE
from fuzz.world import BASE, GONE, HUGE, ROOM, WINDOW, rng_of

Random = random.Random
RW = 3
FIXED = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED
LIVES = {"calls": 60, "ksmd": 8, "threads": 12, "signals": 8, "forks": 5, "refused": 7}
CONTENTS = 12

# What a life may be left without: kinds of actions, of lives, and of what is looked at
KINDS: dict[str, str] = {
    "map": "mmap, munmap, mprotect, brk", "bytes": "read, write, touch, update", "advice": "madvise, prctl", "ksm": "scans, merged pages",
    "processes": "fork, exec, exit", "force": "write(force=True)", "odd": "odd arguments", "swap": "swap_out, swapon, swapoff",
    "mremap": "mremap", "mremap-zero": "mremap() to addresses that no process may have", "shared": "MAP_SHARED",
    "huge": "huge pages", "migrate": "migrate, move_pages", "hotplug": "offline, online", "memory-failure": "memory_failure",
    "named-twice": "a process that memory_failure() names twice", "fail": "failing allocations", "sysfs": "writes to KSM's files",
    "image": "mmap_image", "image-change": "image files that change on disk", "view": "views of the machine's memory", "look": "what only looks",
    "trace": "trace events", "record": "record()", "clock": "advance()", "clock-far": "advance() beyond what the clock has",
    "stray": "anything on processes without a shadow", "litter": "garbage that calls the machine", "machines": "other machines with odd arguments",
    "half-made": "machines whose __init__ is not through", "names": "names whose __str__ raises", "objects": "odd objects and attributes",
    "close": "close() and calls afterwards", "os-fork": "fork of the interpreter", "close-signal": "close() in a signal handler",
    "force-errno": "a forced access that runs out of memory half way, and says EFAULT",
    "view-overlap": "writing what a view of the same frame has", "top": "move_pages() in the last page of all addresses, a page table of 2**64 - 1 bytes", "check-threads": "check() in one of several threads", "refuse-dontneed": "a system that refuses MADV_DONTNEED",
    **{name: f"lives of this kind ({name})" for name in LIVES if name != "calls"},
}  # fmt: skip


def place(rng: Random) -> list[Any]:
    """Often the one of the last action: faults need a page with a history."""
    if rng.last is None or rng.random() > rng.sticky:  # type: ignore[attr-defined]
        rng.last = new_place(rng)  # type: ignore[attr-defined]
    return rng.last  # type: ignore[attr-defined]


def new_place(rng: Random) -> list[Any]:
    chance = rng.random()
    if chance < 0.5:
        return ["near", rng.hot[int(rng.random() * len(rng.hot))]]  # type: ignore[attr-defined]
    if chance < 0.7:
        return [rng.choice(["near", "near", "near", "slot"]), rng.randrange(WINDOW)]
    if chance < 0.93 or not rng.huge:  # type: ignore[attr-defined]
        return ["map", rng.randrange(16), rng.choice([0, 0, 1, 2, 5, 511, 512, rng.randrange(1024)])]
    return ["room", rng.randrange(4)]


def anywhere(rng: Random) -> list[Any]:
    """Mostly a place with memory."""
    if rng.random() < 0.96:
        return place(rng)
    return ["at", rng.choice([*odds.NUMBERS[:12], BASE + 1, BASE - 1, (1 << 47) - PAGE, (1 << 47) - 2 * PAGE, 1 << 47, (1 << 64) - PAGE,
                              HUGE, 65536, 4096, ROOM + 1, BASE + 24 * PAGE]) % (1 << 64)]  # fmt: skip


def pages(rng: Random) -> int:
    if rng.huge and rng.random() < 0.2:  # type: ignore[attr-defined]
        return rng.choice([511, 512, 513, 1024, 1025])
    return rng.choice([1, 1, 1, 2, 2, 3, 4, 5, 8, 12, 31, 40])


def length(rng: Random) -> int:
    """Of a system call: pages, or nearly, or anything."""
    chance = rng.random()
    if chance < 0.9:
        return pages(rng) * PAGE
    if chance < 0.96:
        return pages(rng) * PAGE + rng.choice([-1, 1, 100, -4095])
    return rng.choice([number for number in odds.NUMBERS if 0 <= number < 1 << 64])


def extent(rng: Random) -> tuple[int, int]:
    """Offset in a page, and bytes: mostly whole pages."""
    chance = rng.random()
    if chance < 0.5:
        return 0, PAGE
    if chance < 0.75:
        return 0, pages(rng) % 64 * PAGE
    return rng.choice([0, 1, 8, 2048, 4095]), rng.choice([0, 1, 2, 8, 100, 4095, 4096, 4097, 9000])


def odd_argument(rng: Random, positions: int, chance: float = 0.03) -> Any:
    if "odd" not in rng.kinds or rng.random() > chance:  # type: ignore[attr-defined]
        return None
    kind = rng.random()
    if kind < 0.25:
        spec = ["value", rng.choice(odds.NUMBERS)]
    elif kind < 0.45:
        spec = ["index"]
    elif kind < 0.65:
        spec = ["calls", rng.choice([["scan", 50], ["look"], ["swap"], ["spawn"], ["fork"], ["check"], ["drain"]])]
    else:
        spec = odds.stranger(rng)
    return [rng.randrange(positions), spec]


def who(rng: Random) -> int:
    if rng.random() > rng.sticky:  # type: ignore[attr-defined]
        rng.one = rng.choice([0, 0, 0, 1, 1, 2, 3, 5])  # type: ignore[attr-defined]
    return GONE if rng.random() < 0.02 else rng.one  # type: ignore[attr-defined]


def content(rng: Random) -> int:
    return rng.choice([0, 1, 1, 2, 3, 4, 5, 6, rng.randrange(CONTENTS), rng.randrange(256)])


def prot(rng: Random) -> int:
    return rng.choice([RW] * 6 + [0, 1, 1, 2, 4, 5, 7, 8])


def flags(rng: Random) -> int:
    kind = ksm.MAP_SHARED if "shared" in rng.kinds and rng.random() < 0.3 else ksm.MAP_PRIVATE  # type: ignore[attr-defined]
    if rng.random() < 0.04:
        return rng.choice([0, kind, 3 | ksm.MAP_ANONYMOUS, -1, 1 << 30, kind | ksm.MAP_ANONYMOUS | 0x100])
    return kind | ksm.MAP_ANONYMOUS | rng.choice([0, ksm.MAP_FIXED, ksm.MAP_FIXED, ksm.MAP_FIXED_NOREPLACE, ksm.MAP_NORESERVE, 0x8000])


def mmap(rng: Random) -> dict[str, Any]:
    return {"who": who(rng), "place": ["slot", rng.randrange(WINDOW)] if rng.random() < 0.5 else anywhere(rng), "length": min(length(rng), 1 << 34) if rng.random() < 0.98 else length(rng), "prot": prot(rng),
            "flags": flags(rng), "odd": odd_argument(rng, 4)}


def mremap(rng: Random) -> dict[str, Any]:
    to: Any = (["slot", rng.randrange(WINDOW)] if rng.random() < 0.7 else anywhere(rng)) if rng.random() < 0.5 else None
    if rng.random() < 0.06:
        to = ["at", rng.choice([0, 0, PAGE, LOWEST - PAGE])]
    return {"who": who(rng), "place": place(rng) if rng.random() < 0.97 else anywhere(rng), "old": min(length(rng), 1 << 34), "new": min(length(rng), 1 << 34),
            "flags": rng.choice([1, 1, 1, 0, 0, rng.choice([1, 1, 1, 1, 3, 4])]), "to": to, "odd": odd_argument(rng, 4)}


def write(rng: Random, force: bool = False) -> dict[str, Any]:
    offset, size = extent(rng)
    buffer = rng.choice(odds.BUFFERS) if size >= PAGE and "odd" in rng.kinds and rng.random() < 0.04 else None  # type: ignore[attr-defined]
    return {"who": who(rng), "place": anywhere(rng), "offset": offset, "length": size, "number": content(rng), "force": force, "kind": buffer,
            "odd": odd_argument(rng, 1)}


def read(rng: Random) -> dict[str, Any]:
    offset, size = extent(rng)
    if rng.random() < 0.01:
        size = rng.choice([number for number in odds.NUMBERS if 0 <= number < 1 << 64])
    return {"who": who(rng), "place": anywhere(rng), "offset": offset, "length": size, "force": rng.random() < 0.3, "odd": odd_argument(rng, 2)}


def image(rng: Random, change: bool = False) -> dict[str, Any]:
    numbers = [content(rng) for _ in range(rng.choice([1, 2, 3, 6, 20]))]
    return {"who": who(rng), "place": None if rng.random() < 0.7 else anywhere(rng), "numbers": numbers,
            "offset": rng.choice([0] * 6 + [PAGE, 1, len(numbers) * PAGE, 1 << 62]), "length": rng.choice([None] * 5 + [PAGE, 0, 1, 1 << 62, 2 * PAGE]),
            "tail": rng.choice([0, 0, 0, 0, 0, 1, 4095]), "node": rng.choice([0, 0, 0, 1, 7]),
            "mode": "file" if change else rng.choice(["file"] * 8 + ["fd", "fd", "closed", "negative", "huge", "text", "directory", "null", "writeonly"]),
            "change": [content(rng) for _ in numbers] if change else None, "odd": odd_argument(rng, 3)}


def knob(rng: Random) -> dict[str, Any]:
    name, values = rng.choice([
        ("use_zero_pages", [0, 1]), ("smart_scan", [0, 1]), ("merge_across_nodes", [0, 1]), ("max_page_sharing", [2, 3, 4, 7, 256]),
        ("stable_node_chains_prune_millisecs", [0, 2000]), ("run", ["2", "0", "2", 2]), ("pages_to_scan", [1, 100]), ("sleep_millisecs", [0, 20]),
        ("advisor_mode", ["none", "scan-time"]), ("advisor_target_scan_time", [1, 200]), ("advisor_max_cpu", [1, 70]),
        ("advisor_min_pages_to_scan", [1, 500]), ("advisor_max_pages_to_scan", [600, 30000]), ("full_scans", [0]), ("pages_shared", [0]),
        ("nothing", [0])])  # fmt: skip
    value: Any = rng.choice(values)
    if rng.random() < 0.35:
        value = rng.choice([rng.choice(odds.TEXTS), rng.choice(odds.NUMBERS), None, 1.5, [], True, False])
    return {"name": name, "value": value}


def machine_argument(rng: Random) -> Any:
    name = rng.choice(["memory", "nodes", "max_memory", "swap", "clock", "transparent_hugepage", "era", "plain"])
    if name in ("clock", "transparent_hugepage", "era"):
        return [name, rng.choice(["", "real", "Never", "6.12 ", "2.6.39", 5])]
    if rng.random() < 0.4 and name != "nodes":
        return [name, rng.choice([text for text in odds.SIZES if len(text) < 30 or name == "memory"])]
    if rng.random() < 0.5:
        return [name, odds.stranger(rng)]
    return [name, ["value", rng.choice(odds.NUMBERS)] if rng.random() < 0.6 else ["calls", ["look"]]]


def stray(rng: Random) -> dict[str, Any]:
    method = rng.choice(METHODS)
    addr = BASE + rng.randrange(64) * PAGE if rng.random() < 0.8 else rng.choice(odds.NUMBERS) % (1 << 64)
    size = rng.choice([0, 1, PAGE, PAGE, 4 * PAGE, 16 * PAGE, 700 * PAGE])
    args = {
        "mmap": [size, rng.randrange(8), ksm.MAP_ANONYMOUS | rng.choice([1, 2, 2 | 16, 1 | 16, 2 | 0x100000]), addr], "munmap": [addr, size],
        "mprotect": [addr, size, rng.randrange(8)], "mremap": [addr, size, rng.choice([0, PAGE, 4 * PAGE, 600 * PAGE]), rng.choice([0, 1])],
        "madvise": [addr, size, rng.choice([4, 10, 11, 12, 13, 14, 15, 18, 19, 21])], "brk": [rng.choice([0, 0x555555556000 + size, addr])],
        "prctl": [67, rng.randrange(2)], "read": [addr, size], "peek": [addr, size], "touch": [addr, size], "swap_out": [addr, size],
        "move_pages": [addr, size, 0], "page_table": [addr, size], "write": [addr, rng.randrange(9)], "force": [addr, rng.randrange(9)],
        "update": [addr, rng.randrange(9)], "migrate": [rng.randrange(600)], "memory_failure": [rng.randrange(600)],
        "offline": [512 * rng.randrange(5), 512], "online": [512 * rng.randrange(5), 512],
    }.get(method, [])  # fmt: skip
    wild = [rng.randrange(len(args)), odds.wild_spec(rng)] if args and "odd" in rng.kinds and rng.random() < 0.35 else None  # type: ignore[attr-defined]
    if wild is not None and method in ("page_table", "move_pages", "swap_out", "touch") and wild[1][0] in ("liar", "value"):
        wild[1] = ["unprintable"]  # a length that takes for ever is no fault
    return {"who": rng.randrange(64), "method": method, "args": args, "odd": wild}


def far(rng: Random) -> dict[str, Any]:
    return {"seconds": rng.choice([9e8, 999999999.0]), "ksmd": 0.0}


Make = Callable[[Random], dict[str, Any]]
ACTIONS: dict[str, list[tuple[str, float, Make]]] = {
    "map": [("mmap", 3, mmap), ("munmap", 2, lambda r: {"who": who(r), "place": anywhere(r), "length": length(r), "odd": odd_argument(r, 2)}),
            ("mprotect", 3, lambda r: {"who": who(r), "place": anywhere(r), "length": length(r), "prot": prot(r), "odd": odd_argument(r, 3)}),
            ("brk", 1.5, lambda r: {"who": who(r), "end": r.choice([0, 1, PAGE, 3 * PAGE, 10 * PAGE, -1, -PAGE, 1 << 47, -0x555555556000]),
                                    "odd": odd_argument(r, 1)})],
    "bytes": [("write", 9, write), ("read", 5, read),
              ("touch", 2, lambda r: {"who": who(r), "place": anywhere(r), "offset": r.choice([0, 0, 1, 4095]),
                                      "length": r.choice([1, 0, -1, 1, pages(r) * PAGE]), "write": r.random() < 0.6, "odd": odd_argument(r, 1)}),
              ("update", 2, lambda r: {"who": who(r), "place": anywhere(r), "number": content(r), "pages": r.choice([0, 1, 1, 2, 5]),
                                       "odd": odd_argument(r, 1)})],
    "advice": [("madvise", 6, lambda r: {"who": who(r), "place": anywhere(r), "length": length(r),
                                         "advice": r.choice([12, 12, 12, 13, 4, 4, 10, 11, 18, 19, 0, 14, 15, 21, -1]), "odd": odd_argument(r, 3)}),
               ("prctl", 1, lambda r: {"who": who(r), "option": r.choice([67, 67, 67, 68, 0, -1]), "arg": r.choice([0, 1, 1, 2, 1 << 63]),
                                       "odd": odd_argument(r, 2)})],
    "ksm": [("settle", 3, lambda r: {"who": who(r), "place": place(r), "pages": r.choice([2, 3, 8, 20, 40]), "kinds": r.randrange(1, 7),
                                     "passes": r.choice([1, 2, 3])}),
            ("scan", 3, lambda r: {"passes": r.choice([1, 1, 2, 3, None]), "pages": None}),
            ("scan", 2, lambda r: {"passes": None, "pages": r.choice([0, 1, 2, 5, 20])}), ("drain", 1, lambda r: {"what": "lru_add_drain_all"}),
            ("drain", 0.5, lambda r: {"what": "drain_all_pages"})],
    "processes": [("spawn", 1, lambda r: {"node": r.randrange(3)}), ("fork", 3, lambda r: {"who": who(r)}), ("exit", 1.5, lambda r: {"who": who(r)}),
                  ("exec", 0.7, lambda r: {"who": who(r), "named": r.random() < 0.3})],
    "force": [("write", 6, lambda r: write(r, True))],
    "swap": [("swap_out", 9, lambda r: {"who": who(r), "place": anywhere(r), "length": r.choice([1, PAGE, PAGE, pages(r) * PAGE, -PAGE, 0]),
                                        "odd": odd_argument(r, 1)}),
             ("swapon", 2, lambda r: {"size": r.choice(["64K", "400K", 65536, 4096, "4M", "64K", 0, -4096, 4097, 1 << 60, None, "x", 1.0])}),
             ("swapoff", 0.7, lambda r: {})],
    "mremap": [("mremap", 4, mremap)],
    "migrate": [("move_pages", 3, lambda r: {"who": who(r), "place": anywhere(r), "length": r.choice([1, PAGE, pages(r) * PAGE, 0, -1]), "node": r.randrange(3)}),
                ("migrate", 3, lambda r: {"who": who(r), "place": place(r), "node": r.choice([None, 0, 1, 2]), "odd": odd_argument(r, 1)})],
    "hotplug": [("offline", 2, lambda r: {"block": r.randrange(5), "blocks": r.choice([512, 512, 512, 1024, 0, 1, 1 << 63])}),
                ("offline", 1, lambda r: {"block": 0, "blocks": r.choice([1, 2, 3, 6, 20]), "who": who(r), "place": place(r)}),
                ("online", 2, lambda r: {"block": r.randrange(5), "blocks": r.choice([512, 512, 512, 1024, 0])})],
    "memory-failure": [("memory_failure", 1, lambda r: {"who": who(r), "place": place(r), "odd": odd_argument(r, 1)})],
    "fail": [("fail", 5, lambda r: {"what": r.choice(["page", "page", "page", "mm_struct", "vm_area_struct", "anon_vma", "anon_vma_chain", "ksm_rmap_item",
                                                     "ksm_stable_node", "ksm_mm_slot", "nothing"]),
                                    "nth": r.choice([1, 1, 2, 3, 5, 0, -1]), "times": r.choice([1, 1, 2, 5, 0, 1 << 62])})],
    "sysfs": [("knob", 4, knob), ("batch_of_files", 0.5, lambda r: {})],
    "image": [("image", 1.5, image)],
    "image-change": [("image", 0.5, lambda r: image(r, True))],
    "view": [("view", 1, lambda r: {"release": r.random() < 0.6}), ("close_with_view", 0.4, lambda r: {}),
             ("write_view", 1, lambda r: {"who": who(r), "place": place(r), "offset": r.choice([0, 0, 8, 4000]), "length": r.choice([1, 8, 4096, 96]),
                                          "source": place(r), "update": r.random() < 0.4})],
    "look": [("look", 1.5, lambda r: {"who": who(r), "place": anywhere(r), "length": min(length(r), 1 << 36) if r.random() < 0.98 else (1 << 64) - 1})],
    "trace": [("trace", 2, lambda r: {"what": r.choice(["start", "read", "read", "stop"]),
                                      "number": r.choice([None, None, 1, 0, -1, 5, 64, 3000, 1 << 28, (1 << 28) + 1, 1.0, "1"])})],
    "record": [("record", 1, lambda r: {"what": r.choice(["start", "note", "note", "stop", "data"]), "steps": r.choice([100, 1, 5000, 0, 1 << 40])})],
    "clock": [("advance", 1, lambda r: {"seconds": r.choice([0.0, 1.0, 2.5, 1e-9, -1.0, float("nan"), 1e9, float("inf"), "1", None]),
                                        "ksmd": r.choice([0.0, 0.0, 0.5, -1.0, float("nan"), 1e300])})],
    "clock-far": [("advance", 0.7, far)],
    "stray": [("stray", 6, stray)],
    "litter": [("litter", 0.4, lambda r: {"number": r.randrange(50)})],
    "machines": [("again", 1, lambda r: {"odd": machine_argument(r)}), ("init_again", 0.2, lambda r: {})],
    "half-made": [("half_made", 0.7, lambda r: {"method": r.randrange(40), "within": r.choice(["", "memory", "nodes", "swap", "max_memory"])})],
    "names": [("bad_name", 0.5, lambda r: {"what": r.choice(["spawn", "fork", "exec"]), "who": who(r)})],
    "objects": [("odd_object", 1, lambda r: {"what": r.choice([
        "process", "process of", "type", "ksm", "machine.ksm", "machine.x", "pid", "name", "del name", "ksm.x", "ksm.pages_shared", "del ksm.run",
        "ksm.run()", "store", "store None", "show None", "copy", "deepcopy", "pickle", "compare", "hash", "len", "index", "write view", "trace", "init",
        "fail list", "spawn node", "spawn none", "raising mode", "get_page"])})],
    "huge": [("hugepage_mode", 0.5, lambda r: {"mode": r.choice(["always", "always", "madvise", "never", "x", None, 5])})],
    "close": [("close", 0.05, lambda r: {})],
    "os-fork": [("os_fork", 1, lambda r: {"how": r.choice(["os", "os", "os", "preexec", "multiprocessing"]),
                                          "then": r.choice(["use", "use and close", "close", "collect", "leave", "nothing"])})],
}  # fmt: skip
ALWAYS = ["map", "bytes", "ksm"]
DEEP = {"swap", "force", "processes", "mremap", "migrate", "advice", "huge"}  # what moves pages about
# In a thread others are at work on the machine; what a view or a clock shows then, nobody can foretell.
NOT_IN_THREADS = {"view", "record", "machines", "half-made", "names", "objects", "clock", "clock-far", "litter", "os-fork", "close", "fail", "memory-failure",
                  "image-change", "huge"}  # fmt: skip


def history(rng: Random, kinds: list[str]) -> list[Any]:
    """A page's own: it goes away, comes back, changes, and goes away again, in whatever ways there are."""
    at: dict[str, Any] = {"who": who(rng), "place": place(rng)}
    away = {
        "swap": [["swap_out", {"length": PAGE, "odd": None}]], "migrate": [["move_pages", {"length": PAGE, "node": rng.randrange(3)}]],
        "ksm": [["madvise", {"length": rng.choice([PAGE, 4 * PAGE]), "advice": 12, "odd": None}], ["scan", {"passes": 2, "pages": None}]],
        "processes": [["fork", {}]], "advice": [["madvise", {"length": PAGE, "advice": rng.choice([4, 13]), "odd": None}]],
        "mremap": [["mremap", {"old": PAGE, "new": 2 * PAGE, "flags": 1, "to": None, "odd": None}]],
        "hotplug": [["offline", {"block": rng.randrange(1, 4), "blocks": 512}]],
    }  # fmt: skip
    reading = {"offset": 0, "length": 1, "force": rng.random() < 0.5, "odd": None}
    back = {"bytes": [["read", reading]], "advice": [["read", reading]], "swap": [["swapoff", {}], ["swapon", {"size": "400K"}]], "ksm": [["scan", {"passes": 1, "pages": None}]],
            "map": [["mprotect", {"length": PAGE, "prot": rng.choice([1, RW]), "odd": None}]]}  # fmt: skip
    writing = {"offset": rng.choice([0, 0, 4095, 100]), "length": rng.choice([PAGE, 1]), "number": content(rng), "kind": None, "odd": None}
    change = {"bytes": [["write", {**writing, "force": False}]], "force": [["write", {**writing, "force": True}]],
              "map": [["update", {"number": content(rng), "pages": 1, "odd": None}]]}  # fmt: skip
    actions: list[Any] = [["write", {**at, **writing, "offset": 0, "length": PAGE, "number": content(rng), "force": False}, "bytes"]]
    first = rng.choice([each for each in away if each in kinds])
    for number, ways in enumerate((away, back, change, away, back)):
        kind = rng.choice([each for each in ways if each in kinds])
        if ways is away and (number == 0 or rng.random() < 0.5):
            kind = first
        elif ways is back and rng.random() < 0.4:
            kind = "bytes"
        for name, args in ways[kind]:
            anywhere = name in ("scan", "swapon", "swapoff", "offline")
            actions.append([name, args if anywhere else {"who": at["who"]} if name == "fork" else {**at, **args}, kind])
    actions.append(["read", {**at, **reading, "length": PAGE}, "bytes"])
    return actions


def make_actions(rng: Random, number: int, kinds: list[str]) -> list[Any]:
    """Actions of these kinds, each kind with a weight of its own."""
    rng.kinds = set(kinds)  # type: ignore[attr-defined]
    rng.hot = [rng.randrange(WINDOW) for _ in range(rng.choice([1, 2, 3, 6]))]  # type: ignore[attr-defined]
    rng.last, rng.one, rng.sticky = None, 0, rng.choice([0.2, 0.6, 0.9])  # type: ignore[attr-defined]
    rng.huge = "huge" in kinds and rng.random() < 0.6  # type: ignore[attr-defined]
    table = [(kind, name, weight * share, make) for kind in kinds for share in [rng.choice([0.3, 1, 1, 3])] for name, weight, make in ACTIONS.get(kind, [])]
    weights = [each[2] for each in table]
    actions: list[Any] = []
    while len(actions) < number:
        kind, name, _weight, make = rng.choices(table, weights)[0]
        args = make(rng)
        if name == "mremap" and (args["flags"] == 3 or (args["to"] is not None and args["to"][0] == "at" and args["to"][1] < LOWEST)):
            kind = "mremap-zero"
        if name == "move_pages" and args["place"][0] == "at" and args["place"][1] >= (1 << 64) - PAGE:
            kind = "top"
        if name == "write_view":
            kind = "view-overlap"
        if name == "look" and args["length"] > 1 << 63:
            kind = "top"
        actions.append([name, args, kind])
        if name == "exec":
            actions.append(["mmap", {"who": args["who"], "place": ["slot", 0], "length": 40 * PAGE, "prot": RW, "flags": FIXED}, "map"])
        if name == "mmap" and rng.random() < 0.5:
            writing = {"offset": 0, "length": rng.choice([1, 5, 40]) * PAGE, "number": content(rng), "force": False}
            actions.append(["write", {"who": args["who"], "place": args["place"], **writing}, "bytes"])
        if rng.random() < 0.1:
            actions += history(rng, kinds)
    return actions


def make_config(rng: Random, kinds: list[str], life: str) -> dict[str, Any]:
    nodes = rng.choice([1, 1, 2, 2, 3]) if "migrate" in kinds or "hotplug" in kinds or rng.random() < 0.3 else 1
    memory = rng.choice(["4M", "6M", "8M"] if nodes < 3 else ["6M", "8M"]) if "huge" in kinds or nodes > 1 or "hotplug" in kinds \
        else rng.choice(["160K", "600K", "2M", "4M"])  # fmt: skip
    modern = rng.random() < 0.85
    machine = {
        "memory": memory, "max_memory": "16M", "nodes": nodes, "swap": rng.choice(["64K", "400K", "4M"]) if "swap" in kinds else None,
        "clock": "manual" if rng.random() < 0.8 or "clock" in kinds else "real", "era": "6.12" if modern else "2.6.38",
        "transparent_hugepage": rng.choice(["always", "madvise"]) if "huge" in kinds else "never",
        "plain": rng.random() < 0.4 or "record" in kinds,
    }
    knobs = {"smart_scan": rng.choice([0, 0, 1]), "use_zero_pages": rng.choice([0, 1]), "max_page_sharing": rng.choice([2, 3, 5, 256, 256]),
             "merge_across_nodes": rng.choice([1, 1, 0]), "stable_node_chains_prune_millisecs": rng.choice([0, 2000])}  # fmt: skip
    return {"machine": machine, "knobs": knobs, "across": bool(knobs["merge_across_nodes"]) or not modern, "every": rng.choice([1, 4, 10, 25]),
            "processes": rng.choice([1, 2, 4, 6]), "scarce": memory in ("160K", "600K"), "ksmd": life in ("ksmd", "threads", "signals", "forks")}


def make_life(seed: int, without: set[str]) -> dict[str, Any]:
    """The life of this seed. What is left out was rolled for all the same, so that the rest is the same life."""
    rng = rng_of("life", seed)
    names = [name for name in LIVES if name == "calls" or name not in without]
    life = rng.choices(list(LIVES), list(LIVES.values()))[0]
    life = life if life in names else "calls"
    usual = [kind for kind in ACTIONS if kind not in ALWAYS and kind != "os-fork"]
    share = rng.choice([0.12, 0.25, 0.5])
    kinds = ALWAYS + [kind for kind in usual if rng.random() < (min(0.8, 2 * share) if kind in DEEP else share)]
    if life == "forks":
        kinds.append("os-fork")
    config = make_config(rng, kinds, life)
    threads = rng.choice([2, 3, 4]) if life == "threads" else 1
    allowed = [kind for kind in kinds if life != "threads" or kind not in NOT_IN_THREADS]
    number = rng.choice([40, 120, 250, 400]) if life != "threads" else 400
    parts = []
    for index in range(threads):
        rolled = make_actions(rng_of("actions", seed, index), number, allowed)
        parts.append([[name, args] for name, args, kind in rolled if kind not in without])
    start = [["mmap", {"who": 0, "place": ["slot", 0], "length": 40 * PAGE, "prot": RW, "flags": FIXED}],
             ["settle", {"who": 0, "place": ["slot", 4], "pages": rng.choice([8, 30]), "kinds": rng.randrange(1, 7), "passes": 2}]]  # fmt: skip
    return {"seed": seed, "life": life, "kinds": kinds, "config": config, "start": start, "parts": parts, "extra": extra(rng, life, without)}


def extra(rng: Random, life: str, without: set[str]) -> dict[str, Any]:
    """What a life of this kind needs beside its actions."""
    refusals = ["mincore", "pidfd_open", "process_madvise", "populate", "madvise-huge", "image", "swapon", "clone", "reserve", "dontneed"]
    return {
        "threads": {"close_after": rng.choice([None, None, rng.random() * 0.5]), "seconds": rng.choice([0.4, 1.0]), "check": "check-threads" not in without,
                    "trouble": [rng.choice(["swapoff", "swapon", "migrate", "offline", "online", "run2", "run1", "check", "look", "stray", "scan"])
                                for _ in range(12)]},
        "signals": {"interval": rng.choice([0.0005, 0.002, 0.01]),
                    "does": [each for each in rng.sample(["raise", "look", "scan", "stray", "fork", "write", "collect", "close"], 3)
                             if each != "close" or "close-signal" not in without]},
        "refused": {"calls": sorted(each for each in rng.sample(refusals, rng.choice([1, 2, 4])) if each != "dontneed" or "refuse-dontneed" not in without)},
    }.get(life, {})  # fmt: skip
