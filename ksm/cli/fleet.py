# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm fleet: who shares with whom, over many hosts? Each of its commands is a module of its own."""

from __future__ import annotations

import importlib

import click

from ksm.cli.group import OneLine

# The commands, each with the questions that it answers
QUESTIONS = {
    "report": "What is shared within sources, on hosts and across hosts? By whom, and by which tenants?",
    "matrix": "How many contents has each source in common with each other one?",
    "place": "Which source should live on which host, so that KSM saves most? How far from the best is that?",
    "check": "What would KSM do on each host of a placement, with max_page_sharing and all?",
}


class FleetCommands(OneLine):
    """The subcommands of `ksm fleet`. That of a name is the function of this name in ksm/cli/fleet_NAME.py."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(QUESTIONS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(QUESTIONS.items()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in QUESTIONS:
            return None
        command: click.Command = getattr(importlib.import_module(f"ksm.cli.fleet_{cmd_name}"), cmd_name)
        return command


@click.group(cls=FleetCommands, short_help="Who shares with whom over many hosts, and who should live with whom?")
def fleet() -> None:
    """Who shares with whom over many hosts, and who should live with whom?

    FILES are fingerprint files, which ksm fingerprint writes: files, folders whose *.parquet are taken, patterns, or addresses for fsspec
    (s3://bucket/folder). Each says from which host it is.
    """
