# SPDX-License-Identifier: GPL-2.0-only
"""The kinds of lives: one thread whose every answer is known, also with ksmd, signals, forks of the interpreter or a system that refuses
system calls; or several threads that do everything at once."""

from __future__ import annotations

import errno
import gc
import random
import signal
import threading
import time
from typing import Any

import ksm
from fuzz import refuse
from fuzz.player import ERRNOS, Player
from fuzz.shadow import PAGE, Area, Space
from fuzz.world import BASE, WINDOW, Closed, Common, Finding, rng_of

RW = 3


def run_life(life: dict[str, Any], without: set[str], log: Any) -> None:
    """Run a life. Raises Finding, or the exception of whatever else goes wrong."""
    common = Common()
    if life["life"] == "refused" and refuse.supported():
        calls = life["extra"]["calls"]
        refuse.refuse(calls)
        common.refused = set(calls)
        if "reserve" in calls:
            # Without addresses there can be no machine at all.
            try:
                ksm.Machine("1M")
            except OSError as error:
                if error.errno == errno.ENOMEM:
                    return
            raise Finding("refused", "a machine without addresses for it")
    if "swapon" in common.refused:
        life["config"]["machine"]["swap"] = None
    player = Player(life["config"], without, log, common=common, solo=life["life"] in ("calls", "refused", "forks", "ksmd"))
    player.still = life["life"] in ("calls", "refused") and "clone" not in common.refused
    try:
        try:
            play(player, life, without)
        except Closed:
            player.closed = True
        player.solo = player.still = True
        player.finish()
    except Finding as finding:
        if player.now is not None and "(at " not in finding.text:
            finding.text += f" (at {player.now})"
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.set_threshold(700, 10, 10)
    if random.Random(life["seed"]).random() < 0.5:
        player.close()
    # Otherwise nobody closes the machine: it is freed with the last reference.


def play(player: Player, life: dict[str, Any], without: set[str]) -> None:
    kind, machine = life["life"], player.machine
    player.run(life["start"])
    if kind in ("ksmd", "forks", "signals") or (kind == "refused" and "clone" in player.common.refused):
        player.note("m.ksm.run = 1")
        machine.ksm.sleep_millisecs = 0 if kind == "ksmd" else 1
        try:
            machine.ksm.run = 1
        except OSError as error:
            if "clone" not in player.common.refused or error.errno not in (errno.EAGAIN, errno.ENOMEM):
                raise Finding("ksmd", f"run = 1: {error}") from None
    if kind == "threads":
        Threads(player, life, without).run()
    elif kind == "signals":
        with_signals(player, life, without)
    else:
        player.run(life["parts"][0])
    if kind in ("ksmd", "forks", "signals", "threads") and not player.closed and not player.common.closing:
        machine.ksm.run = 0


# Signals


class Alarm(BaseException):
    """The exception that a signal handler raises."""


def with_signals(player: Player, life: dict[str, Any], without: set[str]) -> None:
    """A handler runs every moment, and raises an exception or calls the machine, on a process of its own."""
    extra, rng = life["extra"], rng_of("handler", life["seed"])
    guest = Player(player.config, without, player.log, machine=player.machine, common=player.common, name="handler: ", solo=False)
    busy = [False]
    handled = [0]

    def handler(_number: int, _frame: Any) -> None:
        if busy[0] or not extra["does"]:
            return
        busy[0] = True
        handled[0] += 1
        try:
            act(rng.choice(extra["does"]))
        except (Closed, ValueError):
            if not player.machine.closed:
                raise
            player.common.closing = True
        finally:
            busy[0] = False

    def act(what: str) -> None:
        machine = player.machine
        if what == "raise" and armed[0]:
            raise Alarm
        if what == "look":
            guest.nested(["look"])
            machine.vmstat()
        elif what == "scan":
            guest.nested(["scan", 20])
        elif what == "stray":
            guest.do_stray(rng.randrange(15) + 1, rng.choice(["mmap", "swap_out", "fork", "madvise"]), [PAGE, 3, 34, 0][:4], None)
        elif what == "fork":
            guest.nested(["fork"])
        elif what == "collect":
            gc.collect()
        elif what == "write" and not player.common.closing:
            if not guest.subjects:
                guest.do_mmap(0, ["slot", 0], 8 * PAGE, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED)
                guest.do_madvise(0, ["slot", 0], 8 * PAGE, ksm.MADV_MERGEABLE)
            guest.do_write(0, ["slot", rng.randrange(8)], 0, PAGE, rng.randrange(4), False)
            guest.do_read(0, ["slot", rng.randrange(8)], 0, PAGE, False)
        elif what == "close" and handled[0] > 50:
            player.common.closing = True
            try:
                machine.close()
            except (BufferError, RuntimeError):
                player.common.closing = machine.closed

    armed = [False]
    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, extra["interval"], extra["interval"])
    try:
        for action in life["parts"][0]:
            if player.common.closing:
                raise Closed
            try:
                # Only a scan stops for the alarm. Any other call would be done, and the shadow would not know of it.
                armed[0] = action[0] == "scan"
                player.run([action])
            except Alarm:
                pass
            except ValueError as error:
                if not player.common.closing or "closed" not in str(error):
                    raise
                raise Closed from None
            finally:
                armed[0] = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    for subject in guest.subjects:
        player.subjects.append(subject)


# Threads


class Threads:
    """Threads: players with processes of their own, some that trouble all players, and perhaps one that closes the machine."""

    def __init__(self, player: Player, life: dict[str, Any], without: set[str]) -> None:
        self.player, self.life, self.without = player, life, without
        self.errors: list[BaseException] = []
        self.until = time.monotonic() + life["extra"]["seconds"]

    def guard(self, function: Any, *args: Any) -> None:
        try:
            function(*args)
        except Closed:
            pass
        except BaseException as error:
            if not (self.player.common.closing and isinstance(error, ValueError) and "closed" in str(error)):
                self.errors.append(error)

    def act(self, player: Player, actions: list[Any]) -> None:
        while time.monotonic() < self.until:
            for action in actions:
                player.run([action])
                if time.monotonic() > self.until:
                    break

    def trouble(self, player: Player, rng: random.Random) -> None:
        machine, config = player.machine, player.config["machine"]
        while time.monotonic() < self.until:
            what = rng.choice(self.life["extra"]["trouble"])
            process = rng.choice(list(machine.processes.values()) or [None])
            try:
                if what == "swapoff":
                    machine.swapoff()
                elif what == "swapon":
                    machine.swapon(rng.choice(["64K", "400K", "4M"]))
                elif what in ("offline", "online"):
                    getattr(machine, what)(rng.randrange(1, 5) * 512, 512)
                elif what in ("run1", "run2"):
                    machine.ksm.run = int(what[3:])
                elif what == "check":
                    machine.check()
                elif what == "scan":
                    machine.ksm.scan(pages=100)
                elif what == "stray":
                    player.do_stray(rng.randrange(64), rng.choice(["mmap", "munmap", "fork", "exit", "madvise", "exec"]),
                                    [BASE + rng.randrange(64) * PAGE, 4 * PAGE, 12, 0][:3], None)  # fmt: skip
                elif process is not None and what == "migrate":
                    words = [word >> 8 for word in process.page_table(BASE, WINDOW * PAGE) if word & 1]
                    machine.migrate(rng.choice(words or [1]), rng.randrange(config["nodes"]))
                elif process is not None:
                    process.maps(), process.smaps(), process.swap_out(BASE, WINDOW * PAGE), process.read(BASE, PAGE, force=True)
            except OSError as error:
                if error.errno not in ERRNOS and not (error.errno == errno.EINTR and player.common.closing):
                    raise Finding("error", f"{what} in a thread: {error}") from None

    def run(self) -> None:
        player, common = self.player, self.player.common
        players = [Player(player.config, self.without, player.log, machine=player.machine, common=common, name=f"thread {number}: ",
                          solo=False) for number in range(len(self.life["parts"]))]  # fmt: skip
        for each in players:
            self.guard(each.run, self.life["start"])
        threads = [
            threading.Thread(target=self.guard, args=(self.act, each, part)) for each, part in zip(players, self.life["parts"], strict=True)
        ]
        threads.append(threading.Thread(target=self.guard, args=(self.trouble, player, rng_of("trouble", self.life["seed"]))))
        for thread in threads:
            thread.start()
        closing = self.life["extra"]["close_after"]
        if closing is not None:
            time.sleep(closing)
            common.closing = True
            player.machine.close()
        for thread in threads:
            thread.join()
        if common.closing:
            for each in players:
                each.closed = True
        if self.errors:
            raise self.errors[0]
        if common.closing:
            player.closed = True
            if not player.machine.closed:
                raise Finding("closed", "the machine is not closed after close()")
        for each in players:
            each.unpin()
            player.subjects += each.subjects


__all__ = ["Area", "Space", "run_life"]
