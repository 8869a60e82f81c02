# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: random workloads without end.
"""ksm verify --forever: workloads of seeds that nobody has used, one after the other, and what differs is kept.

Of a workload that differs, the findings' folder gets three files: random-SEED.json is the smallest workload that still differs,
random-SEED.whole.json the one that was drawn, and random-SEED.txt says what differs in both. Of a workload on which the kernel stalled, it
gets the last two.
"""

from __future__ import annotations

import json
import secrets
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from ksm.host.files import write_whole
from ksm.oracle.seeds import DRAWN
from ksm.oracle.shrink import shrink
from ksm.oracle.verify import Reference, verify
from ksm.oracle.workload import Json, OracleError, Stalled

SHRINK = 600.0  # seconds that one workload is made smaller at most
PROGRESS = 600.0  # seconds between two lines that tell how far it is
PAUSES = (0.5, 1, 2, 5, 10, 20, 40, 60, 60, 60)  # seconds after each workload in a row that could not be compared; then it ends

Say = Callable[[str], object]


def first_seed() -> int:
    """A seed that nobody has used: it is drawn from so many that chance does not draw one of them twice."""
    return DRAWN.start + secrets.randbelow(len(DRAWN) // 2)


def plural(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


class Forever:
    """Verifies workloads until the time is over. `say` prints a line, and `draw` gives the workload of a seed."""

    def __init__(self, draw: Callable[[int], Json], reference: Reference, findings: Path, say: Say) -> None:
        self.draw, self.reference, self.findings, self.say = draw, reference, findings, say
        self.same = self.different = self.stalled = self.undone = 0
        self.began = time.monotonic()

    def run(self, seed: int, minutes: float | None, first: bool = False) -> int:
        """Begin with this seed; how many workloads differ. With `first`, end after one. OracleError if nothing can be compared any more, or
        if nothing was.
        """
        self.seed = seed
        last: OracleError | None = None
        end = self.began + minutes * 60 if minutes is not None else float("inf")
        told = self.began
        in_a_row = 0
        self.say(f"from seed {seed} on")
        try:
            while time.monotonic() < end and not (first and self.different):
                try:
                    self.one(self.seed)
                    in_a_row = 0
                except OracleError as error:
                    self.say(f"random-{self.seed}: not compared: {error}")
                    self.undone += not isinstance(error, Stalled)
                    last = error
                    if in_a_row == len(PAUSES):
                        raise OracleError(f"{in_a_row + 1} workloads in a row could not be compared; the last one: {error}") from None
                    time.sleep(max(0.0, min(PAUSES[in_a_row], end - time.monotonic())))
                    in_a_row += 1
                self.seed += 1
                if time.monotonic() - told > PROGRESS:
                    told = time.monotonic()
                    self.say(self.summary(seed))
        except KeyboardInterrupt:
            pass
        finally:
            self.say(self.summary(seed))
        if last is not None and not self.same + self.different:
            raise OracleError(f"no workload could be compared; the last one: {last}")
        return self.different

    def summary(self, first: int) -> str:
        counts = [f"{self.same:,} the same", f"{self.different:,} different", f"{plural(self.stalled, 'stall')} of the kernel"]
        if self.undone:
            counts.append(f"{self.undone:,} not compared")
        if self.different or self.stalled:
            counts.append(f"see {self.findings}")
        compared = self.same + self.different + self.stalled + self.undone
        seconds = time.monotonic() - self.began
        return f"{plural(compared, 'workload')} in {seconds / 60:.1f} minutes, seeds {first} to {self.seed}: {', '.join(counts)}"

    def one(self, seed: int) -> None:
        """Verify the workload of a seed, and keep it if it differs. OracleError if it cannot be compared."""
        workload = self.draw(seed)
        name = workload["name"]
        try:
            report = self.differs(workload)
        except Stalled as error:
            self.stalled += 1
            self.keep(name, f"{error}\n", whole=workload)
            raise
        if not report:
            self.same += 1
            return
        self.keep(name, f"{report}\n", whole=workload)
        self.different += 1
        self.say(report)
        self.make_smaller(name, workload, report)

    def differs(self, workload: Json) -> str:
        """What differs; empty if nothing does. An error of the port is a difference. OracleError."""
        try:
            found = verify(workload, self.reference)
        except OracleError:
            raise
        except Exception:
            return f"{workload['name']}: the port has failed\n{traceback.format_exc().rstrip()}"
        return found.report(workload["name"]) if found else ""

    def make_smaller(self, name: str, workload: Json, report: str) -> None:
        """Keep ever smaller workloads that differ, so that the smallest one so far is there whenever it ends."""
        end = time.monotonic() + SHRINK

        def still(smaller: Json) -> bool:
            if time.monotonic() > end:
                return False
            now = self.differs(smaller)
            if now:
                self.keep(name, f"{report}\n\nThe smallest:\n{now}\n", smallest=smaller)
            return bool(now)

        smallest, tried = shrink(workload, still)
        if smallest == workload or not (self.findings / f"{name}.json").exists():
            self.keep(name, f"{report}\n\nNone of {tried} smaller ones differs.\n", smallest=workload)
        self.say(f"{name}: {len(smallest['steps'])} of {len(workload['steps'])} steps left, in {self.findings / name}.json")

    def keep(self, name: str, report: str, *, whole: Json | None = None, smallest: Json | None = None) -> None:
        """Write a finding. OSError."""
        texts = {ending: json.dumps(what) + "\n" for ending, what in ((".whole.json", whole), (".json", smallest)) if what is not None}
        try:
            self.findings.mkdir(parents=True, exist_ok=True)
            for ending, text in {**texts, ".txt": report}.items():
                write_whole(str(self.findings / f"{name}{ending}"), text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.findings)) from None
