# SPDX-License-Identifier: GPL-2.0-only
"""Draw single changes at random, for a person to look through and put into table.py.

    python tests/mutants/draw.py [SEED]

For each file, or group of files, a kind of change is drawn, and then a place in a function where it can be made: so all kinds are equally
frequent. Lines are left out if a test of one thread cannot see their change: locks and barriers, prefetching, checks of a debug build, and
calls that let other threads go first.
"""

import io
import random
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SEED = 612
# How many changes are drawn, and from which files
WANTED = (
    (30, ("ksm/mm/ksm.pyx",)),
    (8, ("ksm/mm/memory.pyx",)),
    (4, ("ksm/mm/rmap.pyx",)),
    (4, ("ksm/mm/migrate.pyx",)),
    (4, ("ksm/mm/swapfile.pyx",)),
    (4, ("ksm/mm/huge_memory.pyx",)),
    (4, ("ksm/mm/vma.pyx",)),
    (4, ("ksm/mm/page_alloc.pyx",)),
    (3, ("ksm/mm/mremap.pyx",)),
    (2, ("ksm/mm/mmap.pyx",)),
    (2, ("ksm/mm/madvise.pyx",)),
    (2, ("ksm/mm/memory_hotplug.pyx",)),
    (1, ("ksm/mm/memory_failure.pyx",)),
    (3, ("ksm/mm/swap.pyx", "ksm/mm/swap_state.pyx", "ksm/mm/vmscan.pyx", "ksm/mm/page_io.pyx")),
    (3, ("ksm/mm/slub.pyx", "ksm/mm/mprotect.pyx", "ksm/mm/pagewalk.pyx", "ksm/mm/page_vma_mapped.pyx", "ksm/mm/interval_tree.pyx")),
    (6, ("include/linux/*.pxd",)),
    (4, ("ksm/lib/rbtree.pyx", "ksm/lib/rbtree.pxd")),
    (2, ("ksm/lib/xxhash.pyx",)),
    (10, ("ksm/fast/*.pyx", "ksm/fast/*.pxd")),
    (2, ("ksm/host/memory.py",)),
    (8, ("ksm/sources/*.py", "ksm/sources/*.pyx")),
    (6, ("ksm/estimate/*.py", "ksm/estimate/*.pyx")),
)
WITHOUT_EFFECT = re.compile(
    r"\b(VM_)?BUG_ON\(|WARN_ON|\bcond_resched\(|\bflush_\w+\(|prefetch|_(un|try)?lock(_init|_irq|_read|_write)?\(|_lock\b|\bdown_|\bup_"
    r"|\bsmp_\w+\(|\bmmu_notifier_|\bcpu_relax\(|\bbackoff\(|wake_up|_waitqueue_head\(|pthread_|mutex_"
)
SWAPPED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "+": "-", "-": "+", "<<": ">>", ">>": "<<",
           "&": "|", "|": "&", "+=": "-=", "-=": "+=", "and": "or", "or": "and", "True": "False", "False": "True",
           "break": "continue", "continue": "break", "min": "max", "max": "min"}  # fmt: skip
FLAG = re.compile(r"(set|clear)_\w*flag|(Set|Clear)Page|folio_(set|clear|mark)|pte_mk|pte_wrprotect|\|=|&= ~")


class Change(NamedTuple):
    file: str
    kind: str
    line: int
    function: str
    what: str
    old: str
    new: str


def functions(text: str) -> Iterator[tuple[int, str]]:
    """The lines of function bodies, by number, with the function's name. Docstrings and comments are among them."""
    name, depth, head = "", 0, False
    for number, line in enumerate(text.splitlines()):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        found = re.match(r"\s*(?:cdef|def|cpdef)\b[^=:]*?(\w+)\(", line)
        if found and not re.match(r"\s*cdef extern|\s*cdef (?:enum|struct|class)", line):
            name, depth, head = found[1], indent, not line.rstrip().endswith(":")
            continue
        if head:
            head = not line.rstrip().endswith(":")
        elif name and indent > depth:
            yield number, name
        elif name:
            name = ""


def tokens_of(text: str) -> dict[int, list[tokenize.TokenInfo]]:
    """Tokens by line, without comments. Strings and docstrings are among them."""
    found: dict[int, list[tokenize.TokenInfo]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER, tokenize.STRING) and token.start[0] == token.end[0]:
            found.setdefault(token.start[0] - 1, []).append(token)
    return found


def kind_of(token: tokenize.TokenInfo) -> str:
    if token.string in ("<", "<=", ">", ">="):
        return "off by one"
    if token.string in ("==", "!="):
        return "condition negated"
    if token.string in ("+=", "-="):
        return "counted wrongly"
    if token.string in ("True", "False"):
        return "flag lost"
    return "another way" if token.string in ("break", "continue") else "wrong operand"


def changes_of_line(line: str, tokens: list[tokenize.TokenInfo]) -> Iterator[tuple[str, str, str]]:
    """The changes that a line allows: (kind, what, the line afterwards)."""
    code = line.strip()
    if tokens[0].string in ("cdef", "cimport", "from", "import", "@", "global") or tokens[0].type == tokenize.STRING:
        return
    indent = line[: len(line) - len(line.lstrip())]
    for token in tokens:
        start, end = token.start[1], token.end[1]
        spaced = line[start - 1 : start] == " " and line[end : end + 1] == " "
        if token.string in SWAPPED and (token.type == tokenize.NAME or spaced):
            other = SWAPPED[token.string]
            yield kind_of(token), f"{token.string} became {other}", line[:start] + other + line[end:]
        elif token.type == tokenize.NUMBER and re.fullmatch(r"\d+|0x[0-9a-fA-F]+", token.string) and line[start - 1 : end + 1] != "[0]":
            number = hex(int(token.string, 0) + 1) if "x" in token.string else str(int(token.string) + 1)
            yield "wrong constant", f"{token.string} became {number}", line[:start] + number + line[end:]
        elif token.string == "not" and not line[end:].startswith(" in "):
            yield "condition negated", "not is gone", line[:start] + line[end + 1 :]
    found = re.fullmatch(r"((?:el)?if) (.*?):(\s*#.*)?", code)
    if found:
        yield "condition negated", "condition negated", f"{indent}{found[1]} not ({found[2]}):"
        if found[1] == "if":
            yield "another way", "condition always false", f"{indent}if False and ({found[2]}):"
    balanced = line.count("(") == line.count(")") and line.count("[") == line.count("]") and not line.rstrip().endswith((":", ",", "\\"))
    lost = "flag lost" if FLAG.search(code) else ""
    if balanced and re.match(r"[\w.\[\]]+\(.*\)\s*(#.*)?$", code) and not code.startswith(("return", "yield", "raise", "assert")):
        yield lost or "call is gone", "call is gone", f"{indent}pass"
    found = re.match(r"[\w.\[\]&]+ ([-+|&]|>>|<<)?= ", code) if balanced else None
    if found:
        yield lost or ("counted wrongly" if found[1] in ("+", "-") else "assignment is gone"), "assignment is gone", f"{indent}pass"
    if re.fullmatch(r"return -E[A-Z]+(\s*#.*)?", code):
        yield "another way", "the error is gone", f"{indent}return 0"


def candidates(file: Path) -> Iterator[Change]:
    text = file.read_text()
    lines = text.splitlines()
    tokens = tokens_of(text)
    for number, function in functions(text):
        if number not in tokens or WITHOUT_EFFECT.search(lines[number]):
            continue
        for kind, what, new in changes_of_line(lines[number], tokens[number]):
            yield Change(str(file.relative_to(ROOT)), kind, number + 1, function, what, lines[number], new)


def draw(seed: int, wanted: tuple[tuple[int, tuple[str, ...]], ...] = WANTED, spare: float = 1.6) -> Iterator[tuple[int, list[Change]]]:
    """For each group of files, how many changes are wanted, and some more changes than that, in the order in which they were drawn."""
    rng = random.Random(seed)
    for number, patterns in wanted:
        files = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
        found = [change for file in files for change in candidates(file)]
        drawn: dict[tuple[str, int], Change] = {}
        for _ in range(round(number * spare) + 2):
            # A second change of the same line tells little that is new.
            left = [change for change in found if (change.file, change.line) not in drawn]
            kind = rng.choice(sorted({change.kind for change in left}))
            change = rng.choice([change for change in left if change.kind == kind])
            drawn[change.file, change.line] = change
        yield number, list(drawn.values())


def main() -> None:
    for number, changes in draw(int(sys.argv[1]) if len(sys.argv) > 1 else SEED):
        for place, change in enumerate(changes):
            print(f"{'' if place < number else 'spare: '}{change.file}:{change.line} {change.function}(): {change.kind}: {change.what}")
            print(f"    -{change.old.strip()}\n    +{change.new.strip()}")


if __name__ == "__main__":
    main()
