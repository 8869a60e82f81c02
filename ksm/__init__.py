# SPDX-License-Identifier: GPL-2.0-only
"""The samepage merger of Linux, outside the kernel: mm/ksm.c of Linux 6.12 over a page arena of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

# "import X as X" makes X a public name of this package for type checkers.
from ksm.constants import *  # noqa: F403

try:
    from ksm.machine import Machine as Machine
except ModuleNotFoundError as error:
    if error.name != "ksm.machine":
        raise
    raise ImportError("this is the source tree of ksm, and not built: leave the folder, or install it with pip install -e .") from None
from ksm.fs.proc.task_mmu import PAGE_ANON as PAGE_ANON
from ksm.fs.proc.task_mmu import PAGE_FLAGS_SHIFT as PAGE_FLAGS_SHIFT
from ksm.fs.proc.task_mmu import PAGE_KSM as PAGE_KSM
from ksm.fs.proc.task_mmu import PAGE_KSM_ZERO as PAGE_KSM_ZERO
from ksm.fs.proc.task_mmu import PAGE_PRESENT as PAGE_PRESENT
from ksm.fs.proc.task_mmu import PAGE_SWAPPED as PAGE_SWAPPED
from ksm.fs.proc.task_mmu import PAGE_THP as PAGE_THP
from ksm.fs.proc.task_mmu import PAGE_ZERO as PAGE_ZERO
from ksm.process import Process as Process
from ksm.procfs import Smap as Smap
from ksm.procfs import Vma as Vma
from ksm.sysfs import Ksm as Ksm
from ksm.views import Processes as Processes

if TYPE_CHECKING:
    from typing import Literal

    from ksm.estimate.doctor import Diagnosis
    from ksm.estimate.why import Why
    from ksm.machine import _Era

__version__ = "0.1.0"


def doctor(
    counters: Mapping[str, int | str],
    processes: Mapping[str, Mapping[str, int | str]] | None = None,
    *,
    kernel: str | None = None,
    page_size: int = PAGE_SIZE,  # noqa: F405
) -> Diagnosis:
    """What counters of KSM mean, and what is wrong: an object, with what `ksm doctor` prints.

    `counters` are files of /sys/kernel/mm/ksm and lines of /proc/vmstat by name, as many as there are: machine.ksm.attributes() will do.
    Other names are passed over. `processes` have the lines of /proc/PID/ksm_stat, each under a name that is used to print it. `kernel` is
    the version of Linux that has counted ("6.1"); by default the running one. `page_size` is in bytes.

    ValueError for what is no number of 64 bits, no version or no size of a page; TypeError for other values than int and str.
    The formulas are those of general_profit_show() and ksm_process_profit().
    """
    from ksm.estimate.doctor import diagnose  # an import that few callers need

    return diagnose(counters, processes, kernel=kernel, page_size=page_size)


def why(
    *sources: str,
    address: int | None = None,
    which: Literal["prctl", "advised", "is"] = "prctl",
    era: _Era = "6.12",
    settings: Mapping[str, str] | None = None,
    passes: int | None = None,
    budget: float = 10,
    interval: float | None = None,
    quick: bool = False,
    zeros: Literal["apart", "count"] = "apart",
    threads: int | None = None,
) -> Why:
    """Scan sources, and say of each page why it is merged or not: an object, with what `ksm why` prints.

    A source is "pid:N" or the path of a file; without any, all processes count that may be read. `address` (in bytes, of the first source)
    asks for the story of one page. `which` says which mappings of processes count, as --as; `settings` are files of /sys/kernel/mm/ksm.
    `passes` of KSM are made, or as many as it takes until nothing changes, within `budget` seconds, or one every `interval` seconds.
    `quick` does not read what KSM never looks at. Pages of zeros in files are set apart, or counted.

    SourceError of ksm.sources for a source that cannot be read: one line says which, and why. ValueError for a setting that is refused.
    The reasons are decisions of cmp_and_merge_page(), should_skip_rmap_item() and vma_ksm_compatible().
    """
    from ksm.estimate.look import ask  # an import that few callers need

    return ask(
        sources, address, which=which, era=era, settings=settings, passes=passes, budget=budget, interval=interval, quick=quick,
        zeros=zeros, threads=threads,
    )  # fmt: skip


def get_include() -> str:
    """The folder of the headers: for `include_path` of cythonize() and `include_dirs` of an Extension."""
    from pathlib import Path  # this import takes a hundredth of a second, and few callers need it

    here = Path(__file__).resolve().parent
    shipped = here / "include"  # in a wheel; in the source tree include/ stands beside ksm/
    return str(shipped if shipped.is_dir() else here.parent / "include")
