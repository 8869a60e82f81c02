# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""The command `ksm`."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any, NoReturn

import click

import ksm

# Each is the function of its name in a module of this folder, which is imported when it is asked for.
COMMANDS = {"bench": "bench", "replay": "workloads", "scan": "scan", "study": "study", "verify": "workloads"}


class OneLineGroup(click.Group):
    """A group whose errors are one line on stderr: exit code 2 for wrong usage, 1 for everything else."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"ksm.cli.{COMMANDS[cmd_name]}"), cmd_name)
        return command

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        if sys.stdout is None:
            # Python and click would drop all output and call that a success.
            fail("ksm: standard output is closed", 1)
        try:
            sys.exit(super().main(*args, standalone_mode=False, **extra) or 0)
        except click.UsageError as error:
            name = error.ctx.command_path if error.ctx else "ksm"
            fail(f"{name}: {error.format_message()} ({name} --help)", error.exit_code)
        except click.ClickException as error:
            fail(f"ksm: {error.format_message()}", error.exit_code)
        except click.Abort:
            fail("ksm: interrupted", 130)
        except MemoryError:
            fail("ksm: out of memory", 1)
        except OSError as error:
            # It may be our output that could not be written: Python must not try to flush the rest at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno == errno.EPIPE:
                sys.exit(1)         # whoever read it has gone
            fail(f"ksm: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 1)


    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # click would write an empty line first.
            raise click.Abort() from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            # The help where errors go. click's own way depends on its version: exit code 0, or an exception whose text is the help.
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)


def fail(text: str, code: int) -> NoReturn:
    line = " ".join(text.split())
    click.echo("".join(char if char.isprintable() else "?" for char in line), err=True)
    sys.exit(code)


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(ksm.__version__, prog_name="ksm", message="%(prog)s %(version)s")
def main() -> None:
    """Linux's samepage merger (KSM) outside the kernel: what would it merge, and what would that save?"""
