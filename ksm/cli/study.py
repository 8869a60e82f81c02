# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm study: the kernel's file beside the port, and recordings."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
from rich.console import Console

from ksm.host.files import open_to_write
from ksm.host.text import printable
from ksm.record.recording import RecordingError
from ksm.study.kernel import Kernel, StudyError, read_kernel

DEBIAN = "/usr/src/linux-source-6.12.tar.xz"


@click.command(short_help="Read the port beside the kernel, and watch it run.")
@click.option("--kernel", "kernels", multiple=True, metavar="TREE-OR-FILE",
              help="Where mm/ksm.c is: a source tree, the file, a tarball (gz, bz2, xz), or GIT@REVISION. The first is compared with a "
                   "second one.")
@click.option("-o", "output", metavar="DIR", help="The folder that gets ksm-study.html.  [default: this one]")
@click.option("--recording", "recordings", multiple=True, metavar="FILE",
              help="Put this recording of ksm replay --record into the page. It may have 64 MiB.")
@click.option("--diff", "function", metavar="FUNCTION", help="Print both sides of this function here, instead of writing a page.")
@click.option("--same", is_flag=True, help="Print how many statements of each function are the same, and what differs.")
@click.option("--json", "as_json", is_flag=True, help="With --same: as JSON.")
@click.option("--article", is_flag=True, help="Print an article of 2011, annotated: what is right, what is outdated, what never was so.")
@click.option("--serve", is_flag=True, help="Serve the page on this computer, with a machine that does what you say. Ctrl-C ends it.")
@click.option("--port", type=click.IntRange(1, 65535), help="With --serve: the port.  [default: one that is free]")
def study(kernels: tuple[str, ...], output: str | None, recordings: tuple[str, ...], function: str | None, same: bool, as_json: bool,
          article: bool, serve: bool, port: int | None) -> None:
    """Read the port beside the kernel, and watch it run.

    Writes a page that stands on its own: mm/ksm.c on the left, the port on the right, function beside function, and recordings of what
    happens to pages, step by step, with the trees as they grow. The kernel's text is yours: without --kernel the page has the port alone.

    It opens with two small memories to try KSM on. In the file they play what was recorded. --serve prints an address of 127.0.0.1 where a
    machine answers: write, fork, madvise, set, and let ksmd pass by. The address has a token: who does not know it gets nothing.

    Files are regular ones, or <(a command). mm/ksm.c may have 512 KiB and 10,000 lines, four times what that of Linux 6.12 has; a tarball
    may unpack to 3 GiB in front of it.
    """
    if len(kernels) > 2:
        raise click.UsageError("--kernel is given once, or twice to compare", click.get_current_context())
    if (function is not None or same) and not kernels:
        raise click.UsageError(f"--{'same' if function is None else 'diff'} needs --kernel", click.get_current_context())
    if as_json and not same:
        raise click.UsageError("--json needs --same", click.get_current_context())
    if same and (function is not None or len(kernels) > 1):
        raise click.UsageError("--same goes with one --kernel, and not with --diff", click.get_current_context())
    if port is not None and not serve:
        raise click.UsageError("--port needs --serve", click.get_current_context())
    if serve and (output is not None or function is not None or same):
        raise click.UsageError("--serve goes with --kernel and --recording: it writes no file, and prints no function",
                               click.get_current_context())
    if article and (kernels or recordings or output is not None or function is not None or same or serve):
        raise click.UsageError("--article goes alone: it prints a text", click.get_current_context())
    try:
        if article:
            from ksm.study.article.words import print_article

            print_article(Console(highlight=False))
        elif function is not None:
            from ksm.study.terminal import print_diff

            console = Console(highlight=False)
            if not console.is_terminal and "COLUMNS" not in os.environ:
                console = Console(highlight=False, width=200)
            print_diff(read_kernel(kernels[0]), function, console)
        elif same:
            print_share(read_kernel(kernels[0]), as_json)
        elif serve:
            serve_page([read_kernel(where) for where in kernels], recordings, port or 0)
        else:
            write_page([read_kernel(where) for where in kernels], output or ".", recordings)
    except (StudyError, RecordingError) as error:
        raise click.ClickException(str(error)) from None


def print_share(kernel: Kernel, as_json: bool) -> None:
    from ksm.study.same import tables
    from ksm.study.share import as_data, as_text

    found = tables(kernel)
    click.echo(json.dumps(as_data(kernel, found), indent=2) if as_json else as_text(found))


def page_of(kernels: list[Kernel], recordings: tuple[str, ...], live: bool = False) -> str:
    from ksm.record.recording import load
    from ksm.study import lessons, page

    played = [load(name) for name in recordings] + lessons.record_all()
    return page.render(kernels[0] if kernels else None, played, kernels[1] if len(kernels) > 1 else None, live)


def serve_page(kernels: list[Kernel], recordings: tuple[str, ...], port: int) -> None:
    from ksm.study.serve.server import Server

    text = page_of(kernels, recordings, live=True)
    try:
        server = Server(text, port)
    except (OSError, OverflowError) as error:
        raise StudyError(f"port {port} of 127.0.0.1 cannot be used: {error.strerror if isinstance(error, OSError) else error}") from None
    try:
        click.echo(server.address)
        click.echo("Open this address in a browser of this computer. Ctrl-C ends it.", err=True)
        sys.stdout.flush()
        server.serve_forever()
    finally:
        server.close()


def write_page(kernels: list[Kernel], output: str, recordings: tuple[str, ...]) -> None:
    from ksm.study import page

    text = page_of(kernels, recordings)
    path = Path(output) / page.NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(open_to_write(path), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StudyError(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"{printable(str(path))}: {len(text.encode()) / 1e6:.1f} MB")
    if not kernels and Path(DEBIAN).exists():
        click.echo(f"With --kernel {DEBIAN} it has the kernel's side, too.")
