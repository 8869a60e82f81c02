# SPDX-License-Identifier: GPL-2.0-only
"""The samepage merger of Linux, outside the kernel: mm/ksm.c of Linux 6.12 over a page arena of its own."""

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

__version__ = "0.1.0"


def get_include() -> str:
    """The folder of the headers: for `include_path` of cythonize() and `include_dirs` of an Extension."""
    from pathlib import Path  # this import takes a hundredth of a second, and few callers need it

    here = Path(__file__).resolve().parent
    shipped = here / "include"  # in a wheel; in the source tree include/ stands beside ksm/
    return str(shipped if shipped.is_dir() else here.parent / "include")
