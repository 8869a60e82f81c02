# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the command line.
"""ksm fleet matrix: how many contents has each source in common with each other one?"""

from __future__ import annotations

import io

import click

from ksm.cli import fleet_options, options
from ksm.fleet.files import open_fleet
from ksm.fleet.matrices import FORMS, make_matrix
from ksm.host.files import replacing
from ksm.host.text import printable


@click.command(short_help="How many contents has each source in common with each other one?")
@fleet_options.files
@click.option("-o", "output", metavar="FILE", help="The file that is written, or replaced when all went well.  [default: standard output]")
@click.option("--form", type=click.Choice(FORMS), help="What is written.  [default: as FILE ends, or csv]")
@fleet_options.placement
@fleet_options.sample
@click.option("--least", type=click.IntRange(1), default=1, metavar="N", help="Leave out pairs with less than N contents in common.")
@fleet_options.engines
@options.page
def matrix(
    files: tuple[str, ...],
    output: str | None,
    form: str | None,
    placement: str | None,
    sample: int,
    least: int,
    engine: str,
    scheduler: str | None,
    memory: int | None,
    threads: int | None,
    temp: str | None,
    html: str | None,
) -> None:
    """How many contents has each source in common with each other one?

    FILES are fingerprint files: files, folders whose *.parquet are taken, patterns, or addresses for fsspec (s3://bucket/folder).

    Each two sources with contents in common have a row: their names, how many contents, and how alike they are: 2 * common / (a + b), of
    a and b contents. Pages of zeros do not count. As JSON, the sources and their contents are there, too, and an order in which alike ones
    stand side by side.

    With --sample 1/N, one of N contents is looked at. Then the numbers are estimates: error is their standard error, and the true number is
    between low and high in 95 of 100 cases. --least counts contents of the sample.
    """
    context = click.get_current_context()
    if form is None:
        ending = (output or "").rpartition(".")[2].lower()
        form = ending if ending in FORMS else "csv"
    if form == "parquet" and output is None:
        raise click.UsageError("--form parquet needs -o FILE", context)
    asked = fleet_options.options_of(engine, scheduler, memory, threads, temp)
    with fleet_options.errors(), options.progress_bar() as progress:
        found = make_matrix(open_fleet(files, placement=placement), asked, sample=sample, least=least, progress=progress)
    if html is not None:
        options.write_page(html, found)
    if output is None:
        text = io.BytesIO()
        found.write(text, form)
        click.echo(text.getvalue().decode(), nl=False)
        return
    try:
        with replacing(output) as file:
            found.write(file, form)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from None
    click.echo(f"{printable(output)}: {len(found.pairs):,} pairs of {len(found.fleet.members):,} sources")
