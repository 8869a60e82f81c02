# SPDX-License-Identifier: GPL-2.0-only
"""The samepage merger of Linux, outside the kernel: mm/ksm.c of Linux 6.12 over a page arena of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

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
    from ksm.estimate.advise import Advice
    from ksm.estimate.doctor import Diagnosis
    from ksm.estimate.scanned import Report
    from ksm.estimate.sweep import Sweep
    from ksm.estimate.watching import Look
    from ksm.estimate.why import Why
    from ksm.machine import _Era as Era
    from ksm.sources import Which

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


def scan(
    sources: Sequence[str] = (),
    *,
    settings: Mapping[str, str | int] | None = None,
    era: Era = "6.12",
    passes: int | None = None,
    interval: float | None = None,
    budget: float = 10.0,
    which: Which = "prctl",
    zeros: Literal["apart", "count"] = "apart",
    exact: bool = False,
    threads: int | None = None,
    tenants: Mapping[str, Sequence[str]] | None = None,
    details: bool = False,
    contents: bool = False,
) -> Report:
    """What KSM would save: an object, with what `ksm scan` prints.

    `sources` are what a command takes: "pid:N", a file of memory, or a fingerprint file; without any, and without tenants, all processes
    that may be read. `settings` are files of /sys/kernel/mm/ksm that are written first, `era` says whose KSM it is.

    Passes are made until nothing changes, or as many as `passes` says. Processes are watched for as long as ksmd would take, but for
    `budget` seconds at most; `interval` says how many seconds lie between two passes, whatever ksmd takes. `which` are the mappings of
    processes that count, and `zeros` says whether pages of zeros in files do. `exact` keeps the bytes of pages, and not fingerprints.
    `threads` read and hash; by default as many as there are processors.

    `tenants` has the sources of each tenant, by his name: the report then says what merges across tenants. `details` keeps what the page of
    Report.html() shows of single sources, `contents` also the first bytes of what is shared most.

    ValueError for settings that KSM refuses, OSError(EIO) with the reason for a source that cannot be used. The memory is merged as
    ksm_do_scan() does.
    """
    from ksm.estimate.scanned import scan_of  # an import that few callers need

    return scan_of(
        sources, settings=settings or {}, era=era, passes=passes, interval=interval, budget=budget, which=which, zeros=zeros, exact=exact,
        threads=threads, tenants=tenants or {}, details=details, contents=contents,
    )  # fmt: skip


def why(
    sources: Sequence[str] = (),
    address: int | None = None,
    *,
    settings: Mapping[str, str | int] | None = None,
    era: Era = "6.12",
    passes: int | None = None,
    interval: float | None = None,
    budget: float = 10.0,
    which: Which = "prctl",
    zeros: Literal["apart", "count"] = "apart",
    quick: bool = False,
    threads: int | None = None,
) -> Why:
    """Why each page of some memory is merged, or not: an object, with what `ksm why` prints.

    `sources` are what a command takes: "pid:N", a file of memory, or a fingerprint file; without any, all processes that may be read.
    `address`, in bytes, asks for the story of one page of the first source. `quick` does not read what KSM never looks at. The other
    arguments are as for scan().

    ValueError for settings that KSM refuses, OSError(EIO) with the reason for a source that cannot be used. The reasons are decisions of
    cmp_and_merge_page(), should_skip_rmap_item() and vma_ksm_compatible().
    """
    from ksm.estimate.answers import why_of  # an import that few callers need

    return why_of(
        sources, address, settings=settings or {}, era=era, passes=passes, interval=interval, budget=budget, which=which, zeros=zeros,
        quick=quick, threads=threads,
    )  # fmt: skip


def sweep(
    sources: Sequence[str] = (),
    vary: Mapping[str, Sequence[str | int]] | None = None,
    *,
    settings: Mapping[str, str | int] | None = None,
    era: Era = "6.12",
    rules: bool = True,
    cost: float | None = None,
    which: Which = "prctl",
    zeros: Literal["apart", "count"] = "apart",
    interval: float = 1.0,
    threads: int | None = None,
) -> Sweep:
    """What KSM would save with several settings: an object, with what `ksm sweep` prints.

    `sources` are what a command takes: "pid:N", a file of memory, or a fingerprint file; without any, all processes that may be read.
    `vary` has the values of each knob, of which all combinations are tried, also of "era"; without it some usual ones are. `settings` are
    knobs that all rows have, `era` the KSM of all rows. With `rules` the defaults, the kernel's advisor and ksmtuned have rows, too.

    `cost` is how many nanoseconds ksmd takes for a page; it is measured if it is not given. `which` are the mappings of processes that
    count, and `zeros` says whether pages of zeros in files do. Processes are read twice, `interval` seconds apart. `threads` are as many
    as there are processors, and as many machines are there at the same time.

    ValueError for settings that KSM refuses, OSError(EIO) with the reason for a source that cannot be used. The memory is merged as
    ksm_do_scan() does.
    """
    from ksm.estimate.answers import sweep_of  # an import that few callers need

    return sweep_of(
        sources, vary or {}, settings=settings or {}, era=era, rules=rules, cost=cost, which=which, zeros=zeros, interval=interval,
        threads=threads,
    )  # fmt: skip


def advise(
    sources: Sequence[str],
    *,
    settings: Mapping[str, str | int] | None = None,
    era: Era = "6.12",
    interval: float = 1.0,
    threads: int | None = None,
) -> Advice:
    """Which mappings of processes are worth madvise(MADV_MERGEABLE): an object, with what `ksm advise` prints.

    `sources` are processes ("pid:N"). They are read twice, `interval` seconds apart. `settings`, `era` and `threads` are as for sweep().

    ValueError for settings that KSM refuses, OSError(EIO) with the reason for a process that cannot be read. Profit is that of
    ksm_process_profit(), and what a mapping adds to that of others.
    """
    from ksm.estimate.answers import advise_of  # an import that few callers need

    return advise_of(sources, settings=settings or {}, era=era, interval=interval, threads=threads)


def watch(
    sources: Sequence[str] = (),
    *,
    every: float = 60.0,
    count: int | None = None,
    settings: Mapping[str, str | int] | None = None,
    era: Era = "6.12",
    which: Which = "prctl",
    zeros: Literal["apart", "count"] = "apart",
    budget: float = 10.0,
    threads: int | None = None,
) -> Iterator[Look]:
    """What KSM would save now, and again each time that `every` seconds have passed: an iterator of what `ksm watch` prints.

    `sources` are as for sweep(), and opened anew for each look. It ends after `count` looks, or when all sources that were named have gone.
    In each look processes are read for `budget` seconds at most. The other arguments are as for sweep().

    ValueError for settings that KSM refuses, OSError(EIO) with the reason for a source that cannot be used from the beginning. What the
    running kernel's KSM has is counted as general_profit_show() does.
    """
    from ksm.estimate.answers import watch_of  # an import that few callers need

    return watch_of(
        sources, every=every, count=count, settings=settings or {}, era=era, which=which, zeros=zeros, budget=budget, threads=threads
    )


def get_include() -> str:
    """The folder of the headers: for `include_path` of cythonize() and `include_dirs` of an Extension."""
    from pathlib import Path  # this import takes a hundredth of a second, and few callers need it

    here = Path(__file__).resolve().parent
    shipped = here / "include"  # in a wheel; in the source tree include/ stands beside ksm/
    return str(shipped if shipped.is_dir() else here.parent / "include")
