# SPDX-License-Identifier: GPL-2.0-only
"""What mkdocs calls: pages that stand outside of docs/, links between files that lead from page to page, and what --help says."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ksm.cli.group import main

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import page_of  # a hook's folder is no package

OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "tests/kernel/README.md", "tests/truth/README.md",
           "tests/arm64/README.md")
HELP = re.compile(r"^<!-- ksm (\w+(?: \w+)?) --help -->$", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.docs_dir).parent
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(root / path)))
    for notebook in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=page_of(notebook)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links are those of the repository, so that they work there, too. One whose file is not in the site stays, and is a warning."""
    if page.file.src_uri == "commands.md":
        markdown = with_help(markdown)
    here = page.file.src_uri
    in_repository = here if here in OUTSIDE else f"docs/{here}"

    def moved(link: re.Match[str]) -> str:
        path, anchor = link.groups(default="")
        target = normpath(join(dirname(in_repository), path)).removeprefix("docs/")
        return f"]({relpath(target, dirname(here) or '.')}{anchor})" if files.get_file_from_path(target) else link[0]

    return LINK.sub(moved, markdown)


def with_help(markdown: str) -> str:
    """What each command prints for --help, where a comment asks for it."""
    helps = {name: help_of(context) for name, context in every_command()}
    if sorted(HELP.findall(markdown)) != sorted(helps):
        raise PluginError(f"docs/commands.md has {HELP.findall(markdown)}, and the commands are {list(helps)}")
    return HELP.sub(lambda wanted: f"```text\n{helps[wanted[1]]}\n```", markdown)


def every_command() -> Iterator[tuple[str, click.Context]]:
    """Each command, and each one of a command that has some: its name, and what it is called in."""
    above = click.Context(main, info_name="ksm", **main.context_settings)
    for name in main.list_commands(above):
        context = context_of(main, name, above)
        yield name, context
        if isinstance(context.command, click.Group):
            for own in context.command.list_commands(context):
                yield f"{name} {own}", context_of(context.command, own, context)


def context_of(group: click.Group, name: str, above: click.Context) -> click.Context:
    command = group.get_command(above, name)
    assert command is not None
    return click.Context(command, above, name, max_content_width=100, terminal_width=100)


def help_of(context: click.Context) -> str:
    return context.command.get_help(context)
