# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the programs of the computer that this runs on.
"""Running another program: its input, and its output up to a limit."""

from __future__ import annotations

import os
import selectors
import subprocess
from typing import IO

from ksm.host.text import limit_said

CHUNK = 1 << 16
REMEMBERED = 4096  # bytes of its standard error that are kept


class CommandError(Exception):
    """A program could not be run, has failed, or prints too much. The text is one line."""


def output_of(words: list[str], limit: int, given: bytes = b"") -> bytes:
    """Run a program with `given` on standard input: what it prints. It is killed when it prints more than the limit. CommandError."""
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise CommandError(f"{words[0]}: {error.strerror or error}") from None
    with process:
        try:
            printed, said = talk(process, given, limit)
        except BaseException:
            process.kill()
            raise
        if printed is None:
            process.kill()
            raise CommandError(f"{words[0]}: it prints more than {limit_said(limit)}")
        code = process.wait()
    if code:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        raise CommandError(f"{words[0]}: {lines[0] if lines else ended(code)}")
    return printed


def ended(code: int) -> str:
    return f"it ended with exit code {code}" if code > 0 else f"it was ended by signal {-code}"


def talk(process: subprocess.Popen[bytes], given: bytes, limit: int) -> tuple[bytes | None, bytes]:
    """Standard output, and the beginning of standard error. The output is None if both together exceed the limit."""
    assert process.stdin and process.stdout and process.stderr
    printed, said, count = bytearray(), bytearray(), 0
    left = memoryview(given)
    with selectors.DefaultSelector() as waiting:

        def done(stream: IO[bytes]) -> None:
            waiting.unregister(stream)
            stream.close()

        os.set_blocking(process.stdin.fileno(), False)
        waiting.register(process.stdin, selectors.EVENT_WRITE)
        waiting.register(process.stdout, selectors.EVENT_READ)
        waiting.register(process.stderr, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                if key.fileobj is process.stdin:
                    try:
                        left = left[os.write(key.fd, left[:CHUNK]) :] if left else left
                    except BrokenPipeError:  # the program does not read all of its input
                        left = left[:0]
                    if not left:
                        done(process.stdin)
                    continue
                part = os.read(key.fd, CHUNK)
                count += len(part)
                if count > limit:
                    return None, bytes(said)
                if not part:
                    done(process.stdout if key.fileobj is process.stdout else process.stderr)
                elif key.fileobj is process.stdout:
                    printed += part
                else:
                    said += part[: REMEMBERED - len(said)]
    return bytes(printed), bytes(said)
