# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what to ask after a scan.
"""The last words of a scan: whether it has settled, and which command to type next."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

from ksm.constants import PAGE_SIZE
from ksm.estimate.scan import Result
from ksm.host.text import size

MOSTLY = 0.9  # of what is freed: it is only zeros
LONGEST = 100  # characters of the sources in a command
FEW = 4  # processes whose mappings one looks at one by one


def in_a_word(result: Result) -> str:
    """Whether the scan has settled, of what, what has not, and how much is in doubt; "" where there are no pages."""
    if not result.pages:
        return ""
    passes = f"{result.passes} {'pass' if result.passes == 1 else 'passes'}"
    settled = f"Settled in {passes}" if result.settled else f"Not settled after {passes}"
    parts = [f"{settled}, of {what_of(result)}"]
    if result.ledger.volatile and result.passes > 1:
        parts.append(f"{size(result.ledger.volatile * PAGE_SIZE)} changed between them")
    if (doubt := result.freed.most - result.freed.least) > result.freed.most / 100:
        parts.append(f"{size(doubt * PAGE_SIZE)} in doubt")
    return f"{'; '.join(parts)}."


def what_of(result: Result) -> str:
    still = sum(source.still for source in result.sources)
    moving = len(result.sources) - still
    images = "a still image" if still == 1 else "still images"
    if result.snapshots:
        return f"{result.snapshots} snapshots"
    if not moving:
        return images
    processes = "a process" if moving == 1 else "processes"
    return f"{processes} and {images}" if still else processes


def next_command(result: Result, sources: Sequence[str], commands: Collection[str]) -> tuple[str, str]:
    """What to ask after a scan of these sources, and the command that answers it; twice "" if none fits. `commands` are those there are."""
    if "-" in sources or not result.pages or result.snapshots:
        return "", ""
    name, options, answers = fitting(result, sources)
    if name not in commands:
        return "", ""
    words = " ".join(shlex.quote(source) for source in sources)
    if len(words) > LONGEST:
        words = "SOURCE..."
    if name == "doctor":
        words = ""
    return answers, " ".join(part for part in ("ksm", name, words, options) if part)


def fitting(result: Result, sources: Sequence[str]) -> tuple[str, str, str]:
    """Which command fits, with which options, and what it answers."""
    ledger = result.ledger
    if result.already.most and result.freed.most <= 0:
        return "doctor", "", "what the counters of KSM mean, and what is wrong"
    if ledger.freed <= 0:
        return "why", "", "why nothing merges"
    if ledger.profit <= 0 or 2 * ledger.volatile > ledger.pages:
        return "why", "", "why no more merges"
    if result.live and not result.settled:
        return "watch", "", "how it changes, and when it settles"
    if ledger.zero + ledger.split > MOSTLY * ledger.freed and "use_zero_pages" in result.ksm:
        return "sweep", "--vary use_zero_pages=0,1", "what zeros cost, which is most of it"
    if 0 < len(sources) <= FEW and all(source.startswith("pid:") for source in sources):
        return "advise", "", "which mappings pay"
    return "sweep", "", "which knobs, and what ksmd costs"
