# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a machine behind a page.
"""What a visitor of the page may do, each as calls on a ksm.Machine: a write, a fork, madvise, a setting, passes of ksmd.

An action is a dict of JSON: "do" names it, and it has the keys of its row in ACTIONS, no others. What is wrong with one is said in a
sentence.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ksm
from ksm.machine import ERAS
from ksm.record.recorder import COUNTERS
from ksm.record.recording import whole

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

PAGE = ksm.PAGE_SIZE
MEMORY = "4M"
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
MOST_PROCESSES = 4
PAGES = 3  # of a process
LONGEST = 20  # characters of a text
MOST_PASSES = 10
MOST_VISITS = 200  # of pages, in one scan
MOST_ACTIONS = 1000
MOST_STEPS = 20_000  # of one action
SETTINGS = {"max_page_sharing": range(2, 257), "use_zero_pages": range(2), "smart_scan": range(2)}
SCENE = (("alice", ("the same page", "a diary", "a list")), ("bob", ("a novel", "the same page", "a bill")))


class ActionError(Exception):
    """An action that is not possible. The text is a sentence for the visitor."""


class World:
    """A machine with two processes, and a recording of all that happens to it.

    do() takes an action, and gives what the page needs: the recording's new steps, the processes, the settings. ActionError leaves the
    machine as it was.
    """

    def __init__(self, era: str = "6.12") -> None:
        self.era = era_of(era)
        self.machine = ksm.Machine(memory=MEMORY, max_memory=MEMORY, clock="manual", plain=True, era=self.era)
        self.starts: dict[int, int] = {}  # by pid: the address of the first page
        self.mergeable: dict[int, bool] = {}
        self.texts: dict[str, str] = {}  # of one character, by how a recording calls them
        self.actions = 0
        try:
            for name, texts in SCENE:
                process = self.spawn(name)
                for number, text in enumerate(texts):
                    process.write(self.starts[process.pid] + number * PAGE, contents(text))
                self.advise(process, True)
            self.recording = self.machine.record(MOST_STEPS)
        except BaseException:
            self.machine.close()
            raise

    def close(self) -> None:
        self.machine.close()

    def begun(self) -> dict[str, Any]:
        """What the page needs to begin with, as do() gives it."""
        self.recording.note("alice and bob have written their pages, and said madvise(MADV_MERGEABLE). No page is shared.")
        return {"era": self.era, "counters": list(COUNTERS), "files": [name for name in COUNTERS if name in self.machine.ksm.names()],
                **self.answer()}

    def do(self, action: Any) -> dict[str, Any]:
        if not isinstance(action, dict) or not isinstance(action.get("do"), str):
            raise ActionError("An action is an object with “do”.")
        keys, call = ACTIONS.get(action["do"], ((), None))
        if call is None:
            raise ActionError(f"There is no action “{shown(action['do'])}”: {', '.join(ACTIONS)}.")
        if wrong := set(action) ^ {"do", *keys}:
            raise ActionError(f"“{action['do']}” has {', '.join(keys) or 'nothing more'}; look at {', '.join(sorted(map(shown, wrong)))}.")
        if self.actions >= MOST_ACTIONS:
            raise ActionError(f"This machine has done {MOST_ACTIONS} things. Begin anew.")
        self.actions += 1
        try:
            said = call(self, **{key: action[key] for key in keys})
        except OSError as error:
            raise ActionError(f"The kernel answers {name_of(error)}: {REFUSED.get(error.errno or 0, 'it cannot do that')}.") from None
        self.recording.note(said)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The steps since the last answer, and what a recording does not have."""
        part = self.recording.take()
        part["contents"] = [self.texts.get(label, label) for label in part["contents"]]
        processes = [
            {"name": process.name, "mm": process.mm_id, "first": self.starts[pid] // PAGE, "pages": PAGES, "mergeable": self.mergeable[pid]}
            for pid, process in self.machine.processes.items()
        ]
        settings = {name: int(self.machine.ksm.show(name)) for name in SETTINGS if name in self.machine.ksm.names()}
        return {**part, "processes": processes, "settings": settings}

    # Actions. Each gives the sentence that tells it, or what its steps have led to.

    def write(self, process: Any, page: Any, text: Any) -> str:
        """A store of a whole page."""
        who, number = self.process(process), within("page", page, range(1, PAGES + 1))
        data = contents(text)
        if len(text) == 1:
            self.texts[data[:8].hex()] = text
        who.write(self.starts[who.pid] + (number - 1) * PAGE, data)
        return f"{who.name} has written {f'“{text}”' if text else 'zeros'} into page {number}."

    def fork(self, process: Any) -> str:
        who = self.process(process)
        child = who.fork(self.free_name())
        self.starts[child.pid], self.mergeable[child.pid] = self.starts[who.pid], self.mergeable[who.pid]
        return f"{who.name} has forked: {child.name} has the same pages, in the same frames, until one of them writes."

    def exit(self, process: Any) -> str:
        who = self.process(process)
        name = who.name
        self.forget(who)
        who.exit()
        return f"{name} has exited: the memory is given back."

    def begin_process(self) -> str:
        """A process with empty memory."""
        who = self.spawn(self.free_name())
        return f"{who.name} is new, and has {PAGES} pages that were never written to."

    def madvise(self, process: Any, mergeable: Any) -> str:
        who = self.process(process)
        if not isinstance(mergeable, bool):
            raise ActionError("“mergeable” is true or false.")
        self.advise(who, mergeable)
        return f"{who.name} has said madvise({TOGETHER if mergeable else ALONE}."

    def setting(self, name: Any, value: Any) -> str:
        """A file of /sys/kernel/mm/ksm."""
        if not isinstance(name, str) or name not in SETTINGS:
            raise ActionError(f"What can be set is {', '.join(SETTINGS)}.")
        if name not in self.machine.ksm.names():
            raise ActionError(f"The KSM of Linux {self.era} has no {name}.")
        number = within(name, value, SETTINGS[name])
        self.machine.ksm.store(name, str(number))
        return f"{name} is {number} now."

    def scan(self, passes: Any) -> str:
        """Whole passes of ksmd."""
        count = within("passes", passes, range(1, MOST_PASSES + 1))
        self.machine.ksm.scan(passes=count)
        return self.after(RESTS if self.machine.ksm.pages_unshared else "ksmd rests, until it is called again.")

    def visit(self, pages: Any) -> str:
        """ksmd looks at some pages, and stays where it is."""
        count = within("pages", pages, range(1, MOST_VISITS + 1))
        self.machine.ksm.scan(pages=count)
        return self.after(STANDS)

    def unmerge(self) -> str:
        """run = 2, and ksmd stands still again."""
        self.machine.ksm.run = 2
        self.machine.ksm.run = 0
        return "run was 2: every merged page has been taken apart."

    # What they need

    def after(self, said: str) -> str:
        return said if any(self.mergeable.values()) else "ksmd has nothing to look at: nobody has said madvise(MADV_MERGEABLE)."

    def spawn(self, name: str) -> ksm.Process:
        process = self.machine.spawn(name)
        self.starts[process.pid] = process.mmap(PAGES * PAGE)
        self.mergeable[process.pid] = False
        return process

    def advise(self, process: ksm.Process, mergeable: bool) -> None:
        process.madvise(self.starts[process.pid], PAGES * PAGE, ksm.MADV_MERGEABLE if mergeable else ksm.MADV_UNMERGEABLE)
        self.mergeable[process.pid] = mergeable

    def forget(self, process: ksm.Process) -> None:
        del self.starts[process.pid], self.mergeable[process.pid]

    def process(self, name: Any) -> ksm.Process:
        for process in self.machine.processes.values():
            if process.name == name:
                return process
        names = ", ".join(process.name for process in self.machine.processes.values())
        raise ActionError(f"There is no process “{shown(name)}”: {names or 'none'}.")

    def free_name(self) -> str:
        """A name that nobody has."""
        if len(self.starts) >= MOST_PROCESSES:
            raise ActionError(f"There are {MOST_PROCESSES} processes already. One of them has to exit first.")
        taken = {process.name for process in self.machine.processes.values()}
        return next(name for name in NAMES if name not in taken)


RESTS = "ksmd rests. The unstable tree has served its pass: the next pass begins with an empty one."
STANDS = "ksmd stands still, and will go on from here."
TOGETHER = "MADV_MERGEABLE): ksmd may look at these pages"
ALONE = "MADV_UNMERGEABLE): what was merged has pages of its own again"
ACTIONS: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "write": (("process", "page", "text"), World.write),
    "fork": (("process",), World.fork),
    "exit": (("process",), World.exit),
    "spawn": ((), World.begin_process),
    "madvise": (("process", "mergeable"), World.madvise),
    "set": (("name", "value"), World.setting),
    "scan": (("passes",), World.scan),
    "visit": (("pages",), World.visit),
    "unmerge": ((), World.unmerge),
}
REFUSED = {
    errno.EBUSY: "this can be set only while no page is merged",
    errno.ENOMEM: "the machine has no memory left",
    errno.EINVAL: "this value is not allowed",
}


def era_of(era: Any) -> Era:
    for known in ERAS:
        if known == era:
            return known
    raise ActionError(f"There is no era “{shown(era)}”: {', '.join(ERAS)}.")


def contents(text: Any) -> bytes:
    """A page that begins with the text, and has zeros behind it."""
    if not isinstance(text, str) or len(text) > LONGEST or not all(" " <= each <= "~" for each in text):
        raise ActionError(f"A text has {LONGEST} characters at most, from space to ~ in ASCII.")
    return text.encode().ljust(PAGE, b"\0")


def within(what: str, value: Any, allowed: range) -> int:
    if type(value) is not int or value not in allowed:
        raise ActionError(f"“{what}” is a number from {allowed[0]} to {allowed[-1]}.")
    return value


def shown(value: Any) -> str:
    """What a visitor has sent, short and printable, for a sentence that quotes it."""
    text = whole(value) if isinstance(value, str) else type(value).__name__
    return "".join(each if each.isprintable() else "?" for each in text[:LONGEST])


def name_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "an error")
