# SPDX-License-Identifier: GPL-2.0-only
"""Images of numbered pages, and the command `ksm` run on them in this process."""

from pathlib import Path

from click.testing import CliRunner

from ksm.cli.group import main

PAGE = 4096


def page(number: int) -> bytes:
    return number.to_bytes(8, "little") * (PAGE // 8)


def write_image(path: Path, numbers: list[int] | range) -> str:
    path.write_bytes(b"".join(page(number) for number in numbers))
    return str(path)


def invoke(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run the command in this process: (stdout, stderr)."""
    result = CliRunner().invoke(main, list(map(str, arguments)), prog_name="ksm", catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def refused(*arguments: object, code: int = 1) -> str:
    """The one line that says why the command refused."""
    out, err = invoke(*arguments, code=code)
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err[:-1]
