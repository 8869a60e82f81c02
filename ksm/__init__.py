# SPDX-License-Identifier: GPL-2.0-only
"""The samepage merger of Linux, outside the kernel: mm/ksm.c of Linux 6.12 over a page arena of its own."""

from pathlib import Path

from ksm.constants import *  # noqa: F403
from ksm.machine import Machine
from ksm.process import PAGE_ANON, PAGE_FLAGS_SHIFT, PAGE_KSM, PAGE_KSM_ZERO, PAGE_PRESENT, PAGE_ZERO, Process, Vma
from ksm.sysfs import Ksm

__version__ = "0.1.0"


def get_include() -> str:
    """The folder of the headers: for `include_path` of cythonize() and `include_dirs` of an Extension."""
    here = Path(__file__).resolve().parent
    shipped = here / "include"  # in a wheel; in the source tree include/ stands beside ksm/
    return str(shipped if shipped.is_dir() else here.parent / "include")
