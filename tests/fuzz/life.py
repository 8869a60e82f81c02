# SPDX-License-Identifier: GPL-2.0-only
"""Makes a life from a seed: its machine, its threads, and its actions."""

from __future__ import annotations

import random
from typing import Any

from fuzz.grammar import ACTIONS, DEEP, make_actions
from fuzz.roll import FIXED, RW, Roll
from fuzz.shadow import PAGE
from fuzz.world import rng_of

# The kinds of lives, and how often there is each
LIVES = {"calls": 60, "ksmd": 8, "threads": 12, "signals": 8, "forks": 5, "refused": 7}

# What can be left out of a life: kinds of actions, kinds of lives, and kinds of checks
KINDS: dict[str, str] = {
    "map": "mmap, munmap, mprotect, brk",
    "bytes": "read, write, touch, update",
    "advice": "madvise, prctl",
    "ksm": "scans, merged pages",
    "processes": "fork, exec, exit",
    "force": "write(force=True)",
    "odd": "odd arguments",
    "swap": "swap_out, swapon, swapoff",
    "mremap": "mremap",
    "shared": "MAP_SHARED",
    "huge": "huge pages",
    "migrate": "migrate, move_pages",
    "hotplug": "offline, online",
    "memory-failure": "memory_failure",
    "fail": "failing allocations",
    "pin": "pages of which somebody has a reference",
    "sysfs": "writes to KSM's files",
    "image": "mmap_image",
    "image-change": "image files that change on disk",
    "view": "views of the machine's memory",
    "look": "what only looks",
    "trace": "trace events",
    "record": "record()",
    "clock": "advance()",
    "stray": "anything on processes without a shadow",
    "litter": "garbage that calls the machine",
    "machines": "other machines with odd arguments",
    "half-made": "machines whose __init__ is not through",
    "names": "names whose __str__ raises",
    "objects": "odd objects and attributes",
    "sources": "cores and images, damaged",
    "close": "close() and calls afterwards",
    "os-fork": "fork of the interpreter",
    **{name: f"lives of this kind ({name})" for name in LIVES if name != "calls"},
}
ALWAYS = ["map", "bytes", "ksm"]
# In a thread others are at work on the machine; what a view or a clock shows then, nobody can foretell.
NOT_IN_THREADS = {"view", "record", "machines", "half-made", "names", "objects", "clock", "litter", "os-fork", "close", "fail",
                  "memory-failure", "image-change", "sources", "huge"}  # fmt: skip
REFUSALS = ["mincore", "pidfd_open", "process_madvise", "populate", "madvise-huge", "image", "swapon", "clone", "reserve", "dontneed"]
TROUBLE = ["swapoff", "swapon", "migrate", "offline", "online", "run2", "run1", "check", "look", "stray", "scan"]
HANDLERS = ["raise", "look", "scan", "stray", "fork", "write", "collect", "close"]


def make_config(rng: random.Random, kinds: list[str], life: str) -> dict[str, Any]:
    nodes = rng.choice([1, 1, 2, 2, 3]) if "migrate" in kinds or "hotplug" in kinds or rng.random() < 0.3 else 1
    memory = rng.choice(["160K", "600K", "2M", "4M"])
    if nodes > 1 or "huge" in kinds or "hotplug" in kinds:
        memory = rng.choice(["4M", "6M", "8M"] if nodes < 3 else ["6M", "8M"])
    if "huge" in kinds or rng.random() < 0.1:
        memory = rng.choice(["8M", "16M", "32M"])
    chance = rng.random()
    modern = chance < 0.85
    era = "6.1" if chance < 0.15 else "6.12" if chance < 0.75 else "7.3" if modern else "2.6.38"
    machine = {
        "memory": memory, "max_memory": "40M", "nodes": nodes, "swap": rng.choice(["64K", "400K", "4M"]) if "swap" in kinds else None,
        "clock": "manual" if rng.random() < 0.8 or "clock" in kinds else "real", "era": era,
        "transparent_hugepage": rng.choice(["always", "madvise"]) if "huge" in kinds else "never",
        "plain": rng.random() < 0.4 or "record" in kinds,
    }  # fmt: skip
    knobs = {"smart_scan": rng.choice([0, 0, 1]), "use_zero_pages": rng.choice([0, 1]), "max_page_sharing": rng.choice([2, 3, 5, 256, 256]),
             "merge_across_nodes": rng.choice([1, 0] if nodes > 1 else [1, 1, 0]),
             "stable_node_chains_prune_millisecs": rng.choice([0, 2000])}  # fmt: skip
    return {
        "machine": machine,
        "knobs": knobs,
        "across": bool(knobs["merge_across_nodes"]) or not modern,
        "every": rng.choice([1, 4, 10, 25]),
        "processes": rng.choice([1, 2, 4, 6]),
        "scarce": memory in ("160K", "600K"),
        "ksmd": life in ("ksmd", "threads", "signals", "forks"),
    }


def make_life(seed: int, without: set[str], only: str | None = None) -> dict[str, Any]:
    """The life of a seed. Dice are rolled for what is left out, too, so that the rest of the life stays the same."""
    rng = rng_of("life", seed)
    life = rng.choices(list(LIVES), list(LIVES.values()))[0]
    life = only or (life if life not in without else "calls")
    usual = [kind for kind in ACTIONS if kind not in ALWAYS and kind != "os-fork"]
    share = rng.choice([0.12, 0.25, 0.5])
    kinds = ALWAYS + [kind for kind in usual if rng.random() < (min(0.8, 2 * share) if kind in DEEP else share)]
    if life == "forks":
        kinds.append("os-fork")
    config = make_config(rng, kinds, life)
    where = {"who": 0, "place": ["slot", 4]}
    start = [["mmap", {"who": 0, "place": ["slot", 0], "length": 40 * PAGE, "prot": RW, "flags": FIXED}],
             ["settle", {**where, "pages": rng.choice([8, 30]), "kinds": rng.randrange(1, 7), "passes": 2}]]  # fmt: skip
    number, threads = rng.choice([40, 120, 250, 400]), 1
    if life == "threads":
        kinds = [kind for kind in kinds if kind not in NOT_IN_THREADS]
        number, threads = 400, rng.choice([2, 3, 4])
    parts = []
    for index in range(threads):
        rolled = make_actions(Roll(f"actions {seed} {index}"), number, kinds)
        parts.append([[name, args] for name, args, kind in rolled if kind not in without])
    return {
        "seed": seed,
        "life": life,
        "kinds": kinds,
        "config": config,
        "start": start,
        "parts": parts,
        "extra": extra(rng, life),
    }


def extra(rng: random.Random, life: str) -> dict[str, Any]:
    """What a life of this kind needs beside its actions."""
    if life == "threads":
        return {"close_after": rng.choice([None, None, rng.random() * 0.5]), "seconds": rng.choice([0.4, 1.0]),
                "trouble": [rng.choice(TROUBLE) for _ in range(12)]}  # fmt: skip
    if life == "signals":
        return {"interval": rng.choice([0.0005, 0.002, 0.01]), "does": rng.sample(HANDLERS, 3)}
    if life == "refused":
        return {"calls": sorted(rng.sample(REFUSALS, rng.choice([1, 2, 4])))}
    return {}
