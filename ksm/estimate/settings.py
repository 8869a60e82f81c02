# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of /sys/kernel/mm/ksm, as a user names them on a command line.
"""Settings of a scan: KNOB=VALUE, as they would be written to /sys/kernel/mm/ksm."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ksm.constants import PAGE_SIZE
from ksm.estimate.eras import ERA
from ksm.machine import Machine

if TYPE_CHECKING:
    from ksm.machine import _Era as Era


class SettingError(Exception):
    """A setting that KSM does not take. The text is one line."""


def check_settings(settings: Mapping[str, str], era: Era = ERA) -> None:
    """Try settings on a machine that is thrown away. SettingError."""
    with Machine(memory=16 * PAGE_SIZE, max_memory=16 * PAGE_SIZE, era=era) as machine:
        apply_settings(machine, settings)


def apply_settings(machine: Machine, settings: Mapping[str, str]) -> None:
    """Write the settings to the machine's files of /sys/kernel/mm/ksm. `run` is only checked: Scan makes the passes. SettingError."""
    for name, value in settings.items():
        try:
            machine.ksm.store(name, value)
            if name == "run":
                machine.ksm.store(name, "0")
        except KeyError:
            raise SettingError(f"KSM has no {name}; there are {', '.join(writable(machine))}") from None
        except AttributeError:
            raise SettingError(f"{name} can only be read; there are {', '.join(writable(machine))}") from None
        except UnicodeEncodeError:
            # The setting has bytes that are not UTF-8. No file has them in its name, and no file takes them.
            if name not in machine.ksm.names():
                raise SettingError(f"KSM has no {name}; there are {', '.join(writable(machine))}") from None
            raise SettingError(f"{name}={value}: {os.strerror(errno.EINVAL)}") from None
        except OSError as error:
            raise SettingError(f"{name}={value}: {os.strerror(error.errno or 0)}") from None


def writable(machine: Machine) -> list[str]:
    """The files that can be written."""
    names = []
    for name in machine.ksm.names():
        try:
            machine.ksm.store(name, "?")  # no file takes this
        except AttributeError:
            continue
        except OSError:
            pass
        names.append(name)
    return names
