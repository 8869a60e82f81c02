# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""The command `ksm`."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

import ksm
from ksm.host.text import printable, size_said

# The commands by what they are for, each with the questions that it answers. None has to be imported for that.
QUESTIONS: dict[str, dict[str, str]] = {
    "To know what KSM would do here": {
        "scan": "What would I save? Is it only zero pages? Has it settled? Is it safe between tenants (--tenant)?",
        "why": "Why does nothing merge, or no more? What has become of this page?",
        "sweep": "Which knobs? What does ksmd cost? When has it settled?",
        "advise": "Which mappings of a process are worth madvise()? Does prctl() do as well?",
        "watch": "What would be saved now, and an hour later?",
    },
    "To understand the KSM of a running kernel": {
        "doctor": "What do these counters mean, and what is wrong?",
    },
    "To compare many hosts": {
        "fleet": "Who shares with whom, and who should live with whom?",
    },
    "To keep memory for later": {
        "fingerprint": "Write fingerprints of pages into a file, which the commands above take.",
    },
    "To read KSM, and to check this port of it": {
        "study": "Put mm/ksm.c and the port side by side, and watch it run.",
        "replay": "Run a workload, and print what every pass left behind.",
        "verify": "Do the running kernel and the port do the same?",
        "bench": "How fast is the port here, beside the kernel's ksmd?",
    },
}

# Each command is the function of its name in this module of the folder, which is imported when the command is asked for.
COMMANDS = {
    "advise": "advise", "bench": "bench", "doctor": "doctor", "fingerprint": "fingerprint", "fleet": "fleet", "replay": "workloads",
    "scan": "scan", "study": "study", "sweep": "sweep", "verify": "workloads", "watch": "watch", "why": "why",
}  # fmt: skip

# The exit code of a command for errors other than wrong usage. For verify, as for diff and cmp, 1 means that there is a difference.
OTHER = 1
TROUBLE = {"verify": 2}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ReaderGone(Exception):
    """Nobody reads standard output any more."""


def drop_output() -> None:
    """Drop the rest of the output: Python must not try to flush it at its end."""
    with suppress(OSError):  # standard output may be an object that is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class OneLine(click.Group):
    """A group whose errors are one line on stderr: exit code 2 for wrong usage, that of TROUBLE or 1 for everything else."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        words = list(sys.argv[1:] if args is None else args)
        other = TROUBLE.get(next((word for word in words if not word.startswith("-")), ""), OTHER)
        for name in ("COLUMNS", "LINES"):
            if not size_said(os.environ.get(name, "")):
                os.environ.pop(name, None)  # rich would use the value
        if sys.stdout is None:
            # Python and click would drop all output and call that a success.
            fail("ksm: standard output is closed", other)
        try:
            sys.exit(super().main(words, prog_name, complete_var, standalone_mode=False, **extra) or 0)
        except click.UsageError as error:
            name = error.ctx.command_path if error.ctx else "ksm"
            fail(f"{name}: {error.format_message()} ({name} --help)", error.exit_code)
        except click.ClickException as error:
            fail(f"ksm: {error.format_message()}", other if error.exit_code == OTHER else error.exit_code)
        except click.Abort:
            fail("ksm: interrupted", 130)
        except MemoryError:
            fail("ksm: out of memory", other)
        except ReaderGone:
            drop_output()
            sys.exit(other)
        except OSError as error:
            drop_output()
            # Whoever writes to a file names it.
            where = error.filename or ("standard output" if error.errno in NO_ROOM else "")
            fail(f"ksm: {error.strerror or error}" + (f": {where}" if where else ""), other)
        except Exception:
            if other == OTHER:
                raise
            # A fault of this program, which Python would end with 1.
            sys.excepthook(*sys.exc_info())
            sys.exit(other)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # click would write an empty line first.
            raise click.Abort() from None
        except BrokenPipeError:
            # click would end with 1.
            raise ReaderGone from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            # The help goes where errors go. What click does depends on its version: exit code 0, or an exception whose text is the help.
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)


class Commands(OneLine):
    """The subcommands of `ksm`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for what_for, commands in QUESTIONS.items():
            with formatter.section(what_for):
                formatter.write_dl([(name, questions) for name, questions in commands.items() if name in COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"ksm.cli.{COMMANDS[cmd_name]}"), cmd_name)
        return command


def fail(text: str, code: int) -> NoReturn:
    line = " ".join(text.split())
    click.echo(printable(line), err=True)
    sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(ksm.__version__, prog_name="ksm", message="%(prog)s %(version)s")
def main() -> None:
    """Linux's samepage merger (KSM) outside the kernel: what would it merge, and what would that save?"""
