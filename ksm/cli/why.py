# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm why: why does memory merge, or not?"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import click

from ksm.cli import options
from ksm.estimate import why_report
from ksm.estimate.look import ask
from ksm.estimate.report import terminal_width
from ksm.estimate.scan import Zeros
from ksm.estimate.terminal import print_lines
from ksm.sources import SourceError, Which

if TYPE_CHECKING:
    from ksm.machine import _Era as Era
    from ksm.sources.input import Holes

ADDRESS = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
HIGHEST = 1 << 64
MANY = 5000  # regions


def address_of(words: tuple[str, ...]) -> tuple[tuple[str, ...], int | None]:
    """The sources, and the address behind them, if there is one. UsageError."""
    if len(words) < 2 or not ADDRESS.fullmatch(words[-1]) or os.path.lexists(words[-1]):
        return words, None
    address = int(words[-1], 16) if words[-1][:2] in ("0x", "0X") else int(words[-1][:25])
    if address >= HIGHEST:
        raise click.UsageError(f"{words[-1][:40]}: an address has 64 bits", click.get_current_context())
    return words[:-1], address


@click.command(short_help="Why does memory merge, or not, and what would help?")
@click.argument("sources", nargs=-1, metavar="[SOURCE]... [ADDRESS]")
@options.mappings
@options.era
@options.knobs
@options.settings
@options.passes
@options.budget
@options.interval
@options.as_passes
@click.option("--quick", is_flag=True, help="Do not read what KSM never looks at: then it is not said how much of that would merge.")
@options.holes
@options.zeros
@options.exact
@options.key
@options.threads
@options.gentle
@options.page
@click.option("--json", "as_json", is_flag=True, help="Write JSON, with all regions.")
def why(
    sources: tuple[str, ...],
    which: Which | None,
    advised: bool,
    era: Era,
    knobs: str,
    settings: dict[str, str],
    passes: int | None,
    budget: float,
    interval: float | None,
    as_passes: bool,
    quick: bool,
    holes: Holes | None,
    zeros: Zeros,
    exact: bool,
    key_file: str | None,
    threads: int | None,
    gentle: bool,
    html: str | None,
    as_json: bool,
) -> None:
    """Why does memory merge, or not, and what would help?

    Scans the SOURCEs as `ksm scan` does (ksm scan --help says what a SOURCE is), and says of each page why it is merged or not: as KSM has
    decided it in its last visit. Of processes, memory that KSM never looks at counts, too: shared memory, files, hugetlb, what is swapped
    out. It is read and compared with the rest, so that it can be said how much of it would merge if it were private; --quick leaves that
    out.

    What could be gained comes with what would have to be done, the largest gain first.

    With an ADDRESS (0x7f12345000, or a decimal number; of a file, the offset of the memory), it tells the story of one page, which is the
    first SOURCE's: what each visit decided, which pages share its frame, and what would change that. More SOURCEs show who else has it.

    It reads /proc/PID/smaps, which makes who maps memory in the process wait: 10 ms and more for each GiB.
    """
    ctx = click.get_current_context()
    names, address = address_of(sources)
    if as_passes and len(names) < 2:
        raise click.UsageError("--as-passes needs two snapshots at least", ctx)
    if as_passes and passes is not None and passes < len(names):
        raise click.UsageError(f"--passes {passes}: with --as-passes, there is one for each snapshot at least", ctx)
    if exact and key_file is not None:
        raise click.UsageError("--key is for fingerprints, and --exact makes none", ctx)
    if html is not None and address is not None:
        raise click.UsageError("--html is for all pages, and not for the one at an ADDRESS", ctx)
    mappings = options.which_of(which, advised)
    key = None if key_file is None else options.key_in(key_file)
    try:
        with options.progress_bar() as progress:
            found = ask(
                names, address, which=mappings, era=era, settings=settings, passes=passes, budget=budget, interval=interval,
                as_passes=as_passes, quick=quick, holes=holes, zeros=zeros, exact=exact, key=key,
                threads=options.threads_of(threads, gentle), gentle=gentle, progress=progress,
            )  # fmt: skip
    except SourceError as error:
        raise click.ClickException(str(error)) from None
    found.scan.notes.extend(ctx.meta["era_note"])
    width = terminal_width()
    if html is not None:
        options.write_page(html, found)
    if found.story is not None:
        if as_json:
            click.echo(json.dumps(why_report.story_json(found.story), indent=2))
        else:
            print_lines(why_report.story_lines(found.story, width))
    elif as_json:
        # With an indent, Python writes JSON by code that takes many times as long.
        many = sum(len(source.regions) for source in found.sources) > MANY
        click.echo(json.dumps(why_report.as_json(found), indent=None if many else 2))
    else:
        print_lines(why_report.lines(found, width))
