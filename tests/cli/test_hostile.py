# SPDX-License-Identifier: GPL-2.0-only
"""Every command, every file that it takes and every option that it parses, with input that is made to break it.

The command ends with a line on standard error, and no traceback; within seconds of processor time, and with little memory.
"""

import gzip
import json
import lzma
import os
import stat
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import ksm

HOME = Path(ksm.__file__).resolve().parents[1]
MIB, GIB = 1 << 20, 1 << 30
SECONDS, BYTES = 10, 768 * MIB
LONG = "9" * 5001
HALF = "\\ud800"  # of a surrogate pair, in JSON
WRONG = os.fsdecode(b"\xff")  # an argument on a command line that is not UTF-8

WORKLOAD = {"name": "w", "procs": [{"name": "a", "vmas": [{"name": "v", "pages": 2, "contents": [[7, 2]]}]}], "steps": [{"op": "scan"}]}
RECORDING = {"format": "ksm recording 1", "title": "t", "text": "", "era": "6.12", "truncated": False, "counters": [], "mms": {},
             "notes": [], "contents": [], "steps": [[0] * 6]}
NAMES = ("stable_tree_search", "unstable_tree_search_insert", "cmp_and_merge_page")
KERNEL = "".join(f"static void {name}(void)\n{{\n}}\n\n" for name in NAMES)


def core(number, *segments, xnum=0):
    """An ELF core with this many segments, and the first of them."""
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI3QI6H", 4, 62, 1, 0, 128, 64 if xnum else 0, 0, 64, 56, number, 64, bool(xnum), 0)
    section = struct.pack("<2I4Q2I2Q", 0, 0, 0, 0, 0, 0, 0, xnum, 0, 0)
    return head + section + b"".join(struct.pack("<2I6Q", kind, 6, offset, place * GIB, place * GIB, size, size, 4096)
                                     for place, (kind, offset, size) in enumerate(segments, 1))


def later(make):
    """Much text, which is made only when it is needed."""
    return lambda path: path.write_bytes(text if isinstance(text := make(), bytes) else text.encode())


def sparse(data, size):
    return lambda path: (path.write_bytes(data), os.truncate(path, size))


def unlike(**changes):
    return json.dumps({**WORKLOAD, **changes}).replace("HALF", HALF)


def no_recording(**changes):
    return json.dumps({**RECORDING, **changes}).replace("HALF", HALF)


def large_headers(path):
    member = tarfile.TarInfo("linux/a")
    member.size, member.type = 1 << 32, tarfile.XHDTYPE
    sparse(member.tobuf(tarfile.GNU_FORMAT), 256 * MIB)(path)


def a_socket(path):
    os.mknod(path, stat.S_IFSOCK | 0o600)


# Files that no command accepts, except those that harmless() names.
NO_FILES = {
    "missing": lambda path: None, "folder": Path.mkdir, "fifo": os.mkfifo, "socket": a_socket, "loop": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"), "terminal": lambda path: path.symlink_to("/dev/tty"), "empty": "",
    "sparse": sparse(b"", 2 * GIB + 1), "huge": sparse(b"x", 1 << 43), "zeros": "\0" * 4097, "line": later(lambda: "x" * 3_000_001),
}
NO_JSON = {
    "text": "nonsense", "open": "[1, 2", "deep": "[" * 200_000, "deep objects": '{"a":' * 100_000, "bytes": b"\xff\xfe[]",
    "bom": "\ufeff{}",
    "utf-16": "{}".encode("utf-16"), "raw half": b'{"name": "\xed\xa0\x80"}', "half": f'{{"name": "{HALF}"}}', "digits": LONG,
    "many lists": later(lambda: "[" + "[]," * 3_000_000 + "[]]"), "many numbers": later(lambda: "[" + "1," * 500_000 + "1]"),
    "constant": "NaN", "number": "7",
    "string": '"x"', "null": "null", "list": "[]", "object": "{}", "nested": json.dumps({"name": json.loads("[" * 400 + "]" * 400)}),
    "key": f'{{"{HALF}": 1}}', "long key": later(lambda: json.dumps({"x" * MIB: 1})),
    "many keys": later(lambda: json.dumps({f"k{number}": 1 for number in range(100_000)})),
}
NO_WORKLOADS = {
    "name": unlike(name="HALF"), "process": unlike(procs=[{"name": "HALF", "vmas": []}]), "setting": unlike(settings={"HALF": 1}),
    "value": unlike(settings={"run": "HALF"}), "directs": unlike(name="\x1b[31m"), "lines": unlike(name="a\nb"),
    "long": unlike(name="x" * 10_000),
    "digits": unlike(steps=[{"op": "sysfs", "file": "run", "value": LONG}]), "folder": unlike(settings={"../../../tmp/x": 1}),
    "memory": unlike(procs=[{"name": "a", "vmas": [{"name": "v", "pages": 1 << 18, "contents": [[7, 1 << 18]]}]}]),
    "memory of three": unlike(procs=[{"name": f"p{n}", "vmas": [{"name": "v", "pages": 30_000}]} for n in range(3)]),
    "forks": later(lambda: unlike(steps=[{"op": "fork", "proc": "a", "child": f"c{number}"} for number in range(5000)])),
    "processes": later(lambda: unlike(procs=[{"name": f"p{number}", "vmas": []} for number in range(5000)])),
    "pages": unlike(procs=[{"name": "a", "vmas": [{"name": "v", "pages": 10**4000}]}]),
    "steps": later(lambda: unlike(steps=[[]] * 5000)),
    "no records": json.dumps({"workload": WORKLOAD, "kernel": "x"}), "no kernel": json.dumps({"workload": WORKLOAD, "records": []}),
    "numbers": json.dumps({"workload": WORKLOAD, "kernel": "x", "records": [1, 2]}),
    "no step": json.dumps({"workload": WORKLOAD, "kernel": "x", "records": [{}, {}]}),
    "half of it": json.dumps({"workload": WORKLOAD, "kernel": "HALF", "records": []}).replace("HALF", HALF),
}
NO_OUTCOMES = {
    "nothing": "", "numbers": '{"records": [1, 2]}', "no step": '{"records": [{}, {}]}', "no list": '{"records": 7}', "list": "[]",
    "step": '{"records": [{"step": "x"}]}', "events": '{"records": [{"step": 0, "events": 7}]}',
    "ksm": '{"records": [{"step": 0, "ksm": 7}]}',
    "half": f'{{"records": [{{"step": 0, "op": "{HALF}"}}]}}', "deep": "[" * 200_000, "digits": f'{{"records": [{{"step": {LONG}}}]}}',
    "bytes": b"\xff", "nested": json.dumps({"records": [{"step": 0, "pages": json.loads('{"a":' * 400 + "1" + "}" * 400)}]}),
}
NO_RECORDINGS = {
    "title": no_recording(title="HALF"), "notes": no_recording(notes=["HALF"]), "names": no_recording(mms={"1": "HALF"}),
    "number": no_recording(title=7), "counters": no_recording(counters=[[]]), "steps": no_recording(steps=[["x"] * 6]),
    "step": no_recording(steps=[[99] * 6]), "short": no_recording(steps=[[0]]), "none": no_recording(steps=[]),
    "format": no_recording(format="ksm recording 0"), "digits": json.dumps(RECORDING).replace("[0,", f"[{LONG},"),
}
NO_KERNELS = {
    "parentheses": later(lambda: KERNEL + "(" * 300_000), "newlines": later(lambda: KERNEL + "\n" * 300_000), "nul": KERNEL + "\0",
    "static": later(lambda: KERNEL + "static " * 50_000), "words": later(lambda: "static " * 60_000), "zip": "PK\x03\x04" + "\0" * 100,
    "heads": later(lambda: "".join(f"{name}(" for name in NAMES) + "(" * 100_000), "comments": later(lambda: KERNEL + "/* \n" * 2000),
    "half a tarball": lzma.compress(b"x" * 5000)[:40],
    "a flipped byte": lzma.compress(b"x" * 5000)[:30] + b"?" + lzma.compress(b"x" * 5000)[31:],
    "gz of streams": later(lambda: gzip.compress(b"") * 2_000_000),
    "gz of text": gzip.compress(KERNEL.encode()), "gz cut off": gzip.compress(KERNEL.encode())[:-9], "headers": large_headers,
}
NO_CORES = {
    "notes": sparse(core(1, (4, 4096, GIB)), 2 * GIB), "segments": sparse(core(0xFFFF, xnum=(1 << 32) - 1), 1 << 40),
    "more segments": sparse(core(0xFFFF, xnum=19_000_000), 2 * GIB), "offset": sparse(core(1, (1, (1 << 64) - 4096, 8192)), MIB),
    "size": sparse(core(1, (1, 4096, (1 << 64) - 1)), MIB), "table": sparse(core(0xFFFE), MIB), "truncated": core(1, (1, 4096, 4096)),
    "the same bytes": sparse(core(1000, *[(1, 0, 8 * MIB)] * 1000), 8 * MIB), "head": "\x7fELF", "zeros": b"\x7fELF" + bytes(4092),
}

NO_ROWS = {
    "magic": "PAR1" * 3, "nothing": "PAR1", "length": b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1",
    "zeros": b"PAR1" + bytes(5000) + b"PAR1",
    "a foot of zeros": b"PAR1" + bytes(5000) + b"\0\x10\0\0PAR1", "a deep foot": b"PAR1" + b"\x1c" * 5000 + b"\0\x10\0\0PAR1",
    "a long foot": later(lambda: b"PAR1" + b"\x15\x02" * (4 << 20) + b"\0" + (8 * MIB).to_bytes(4, "little") + b"PAR1"),
    "many groups": later(lambda: b"PAR1" + b"\x49\xfc\xff\xff\x1f" + b"\0" * (4 << 20) + (4 * MIB).to_bytes(4, "little") + b"PAR1"),
}

FILES = {"{rows}": NO_ROWS, "{any}": NO_FILES, "{json}": NO_JSON, "{workload}": NO_WORKLOADS, "{outcome}": NO_OUTCOMES,
         "{recording}": NO_RECORDINGS, "{kernel}": NO_KERNELS, "{core}": NO_CORES}

# The commands, and where the file stands in them. No command runs on this computer's kernel.
COMMANDS = [
    ("scan", "{any}"), ("scan", "{core}"), ("scan", "{rows}"), ("scan", "--as-passes", "good.img", "{rows}"),
    ("why", "{core}"), ("fingerprint", "-o", "out.parquet", "{core}"),
    ("doctor", "{any}"), ("doctor", "{json}"), ("doctor", "--sysfs-dir", "{any}"),
    ("replay", "{any}"), ("replay", "{json}"), ("replay", "{workload}"),
    ("replay", "--record", "out.json", "{workload}"), ("verify", "--recorded", "{any}"),
    ("verify", "--recorded", "{json}"), ("verify", "--recorded", "{workload}"), ("verify", "--against", "cat", "{workload}"),
    ("verify", "--shrink", "--against", "cat {outcome}", "good.json"), ("study", "-o", "out", "--recording", "{any}"),
    ("study", "-o", "out", "--recording", "{json}"), ("study", "-o", "out", "--recording", "{recording}"),
    ("study", "-o", "out", "--kernel", "{any}"),
    ("study", "-o", "out", "--kernel", "{kernel}"), ("study", "--diff", "stable_tree_search", "--kernel", "{kernel}"),
]
FROM_INPUT = [("replay", "-"), ("verify", "--recorded", "-"), ("doctor", "-")]
ORACLE = [("kernel", "{any}"), ("kernel", "{json}"), ("record", "{any}"), ("record", "{workload}")]

# For each command: options with hostile values, and the arguments around them. {} stands for the value.
OPTIONS = {
    "scan good.img --passes {}": ["0", "-1", "x", "", LONG, "1.5"],
    "scan good.img --interval {}": ["nan", "inf", "-1", "1e400", LONG, "x", ""],
    "scan good.img --era {}": ["", LONG, WRONG],
    "scan good.img --set {}": ["", "=", "run", "run=x", f"run={LONG}", f"{LONG}=1", f"{WRONG}=1", f"run={WRONG}", "pages_shared=1",
                               "sleep_millisecs=-1"],
    "scan good.img --key {}": ["", "/", "fifo", "missing", "good.json", "/dev/zero", WRONG],
    "scan --as-passes good.img {}": ["", "missing", "pid:1", "good.json", "fifo", "with-fifo", WRONG, "--passes=1 good.img"],
    "fingerprint good.img -o {}": ["", "-", "/", "nothing/x", "fifo", "/dev/full", "with-fifo", "good.img", "x" * 5000, f"{WRONG}/x"],
    "fingerprint good.img -o f%N --count 2 --every {}": ["", "x", "-1", LONG, "1e9", "nan", "1w", WRONG],
    "fingerprint good.img -o f%N --every 0s --count {}": ["", "x", "-1", "0", LONG],
    "fingerprint good.img -o f --key {}": ["", "/", "fifo", "missing", "good.json", "/dev/zero", WRONG],
    "fingerprint good.img -o f --threads {}": ["", "x", "0", LONG],
    "fingerprint -o f {}": ["missing", "pid:", "pid:999999999", "good.json", "fifo", WRONG],
    "scan {}": ["", "pid:", "pid:x", "pid:-1", "pid:0", f"pid:{LONG}", "pid:999999999", "pid:\u0661", "pid:1 2", WRONG, "x" * 5000,
                f"--{LONG}", f"-{WRONG}"],
    "why {}": ["", "pid:", "pid:999999999", "0x10", WRONG, "x" * 5000, f"--{LONG}"],
    "why good.img {}": ["0x", "0xg", LONG, "9" * 30, "-5", "1.5", "missing", f"0x1{'0' * 16}", WRONG],
    "why --as-passes good.img {}": ["", "missing", "0x1000", "pid:1"],
    "doctor {}": ["", "missing", "fifo", "/", "/dev/zero", "good.img", "good.json", WRONG, "x" * 5000],
    "doctor --sysfs-dir {}": ["", "missing", "fifo", "good.img", "with-fifo", "/dev", WRONG, "x" * 5000],
    "doctor --kernel {}": ["", "x", "6", "-1", LONG, f"6.{LONG}", "x6.1" * 5000, WRONG],
    "doctor --page-size {}": ["", "x", "0", "4097", "-4096", LONG],
    "doctor --watch {}": ["", "x", "0", "-1", "nan", "inf", LONG],
    "replay --seed {}": ["", "x", "..", "1..", "5..3", "-3", "-3..-1", "1..x", LONG, f"0..{LONG}", "1..2..3", WRONG],
    "replay good.json --record-steps {}": ["0", "-1", "x", "", LONG, "1000001"],
    "replay good.json --steps {}": ["0", LONG, "x"],
    "replay good.json --record {}": ["", "/", "nothing/x", "fifo", "/dev/full", "x" * 5000, f"{WRONG}/x"],
    "replay {}": ["", WRONG, "x" * 5000],
    "verify good.json --against {}": ["", " ", "a 'b", 'a "b', "a \\", "no-such-command", "false", "/", "sh -c 'kill -9 $$'",
                                      "cat /dev/zero", "yes", "sh -c 'yes >&2'", "cat good.json", "head -c 10 /dev/zero", WRONG],
    "verify --against cat {}": ["", "missing.json", WRONG, "--seed=x", f"--steps={LONG}", "--recorded", "good.json --seed=1"],
    "study -o {}": ["good.json", "/dev/full/x", "x" * 5000, "with-fifo"],
    "study --diff {}": ["", "x", WRONG],
    "study --kernel good.c --diff {}": ["", "x", WRONG, LONG],
    "study -o out --kernel {}": ["", f".@{WRONG}", ".@--output=x", ".@", "@", "x" * 5000, WRONG, f"{WRONG}@x"],
    "bench --way ksm --pages {}": ["0", "-1", "x", LONG, str(1 << 27)],
    "bench --workload {}": ["", "x", LONG, WRONG],
    "bench --way {}": ["", "x", LONG, WRONG],
    "bench --repeat {}": ["", "0", "x", LONG, WRONG],
    "{}": ["", "x", LONG, WRONG, "--x", f"-{WRONG}"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Calls the command, in a folder with some good files."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "good.json").write_text(json.dumps(WORKLOAD))
    (folder / "good.img").write_bytes(bytes(8192))
    (folder / "good.c").write_text(KERNEL)
    (folder / "with-fifo").mkdir()
    for name in ("fifo", "with-fifo/ksm-study.html"):
        os.mkfifo(folder / name)
    environment = {**os.environ, "PYTHONPATH": str(HOME), "COLUMNS": LONG, "LINES": "\u00b2"}
    server = subprocess.Popen([sys.executable, Path(__file__).with_name("runner.py")], cwd=folder, env=environment, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with server:

        def call(*arguments, stdin=None, program="ksm"):
            order = {"program": program, "arguments": arguments, "stdin": stdin, "seconds": 120}
            server.stdin.write(json.dumps(order) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        call.folder = folder
        yield call
        server.stdin.close()


def written(folder, name, kind, what):
    """The path of a hostile file."""
    path = folder / "{}-{}".format(kind.strip("{}"), name.replace(" ", "-"))
    if not os.path.lexists(path):
        if callable(what):
            what(path)
        else:
            path.write_bytes(what if isinstance(what, bytes) else what.encode())
    return path


def check(result, *, code=(1, 2)):
    """The result is one line, came soon, and took little memory."""
    assert result["code"] in code, result
    assert "Traceback" not in result["err"]
    assert result["err"].count("\n") == 1 and result["err"].endswith("\n"), result["err"]
    assert result["err"][:-1].isprintable()
    assert result["seconds"] < SECONDS, result
    assert result["peak"] < BYTES, result


def harmless(kind, name, command):
    """Whether a file does no harm to this command: an image may be zeros, a core may have empty notes, a text may be long."""
    return (command[0], kind, name) in {
        ("scan", "{any}", "sparse"), ("scan", "{any}", "huge"), ("scan", "{core}", "zeros"), ("why", "{core}", "zeros"),
        ("study", "{kernel}", "comments")}


def cases(commands):
    for command in commands:
        kind = next(kind for kind in FILES if any(kind in word for word in command))
        yield pytest.param(command, kind, id=" ".join(command))


@pytest.mark.parametrize(("command", "kind"), list(cases(COMMANDS)))
def test_files(run, command, kind):
    for name, what in FILES[kind].items():
        path = written(run.folder, name, kind, what)
        result = run(*(word.replace(kind, str(path)) for word in command))
        if result["code"] == 0 and harmless(kind, name, command):
            assert result["seconds"] < SECONDS and result["peak"] < BYTES, (name, result)
        else:
            check(result, code=(2,) if command[0] == "verify" else (1, 2))


@pytest.mark.parametrize(("command", "kind"), list(cases(ORACLE)))
def test_files_of_the_oracle(run, command, kind):
    """python -m ksm.oracle refuses them before it looks for a kernel."""
    for name, what in FILES[kind].items():
        path = written(run.folder, name, kind, what)
        before = path.read_bytes() if path.is_file() and path.stat().st_size < MIB else None
        check(run(*(word.replace(kind, str(path)) for word in command), program="python -m ksm.oracle"), code=(2,))
        assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("command", FROM_INPUT, ids=" ".join)
def test_standard_input(run, command):
    """Of an endless standard input no more than the limit is read."""
    code = (1, 2) if command[0] == "doctor" else (2,)
    check(run(*command, stdin="/dev/zero"), code=code)
    check(run(*command, stdin="/dev/null"), code=code)
    for name, what in {**NO_JSON, **NO_WORKLOADS}.items():
        kind = "{json}" if name in NO_JSON and what is NO_JSON[name] else "{workload}"
        check(run(*command, stdin=str(written(run.folder, name, kind, what))), code=code)


@pytest.mark.parametrize("words", OPTIONS)
def test_options(run, words):
    for value in OPTIONS[words]:
        check(run(*(word.replace("{}", value) for word in words.split())), code=(2,) if words.startswith("verify") else (1, 2))


def test_what_is_good_is_not_refused(run):
    """Good files work, with the same commands as the bad ones."""
    (run.folder / "recording.json").write_text(json.dumps(RECORDING))
    for words in (("scan", "good.img"), ("replay", "good.json"), ("replay", "--record", "r.json", "good.json"),
                  ("verify", "--against", f"{sys.executable} -m ksm replay --pages --events -", "good.json"),
                  ("study", "-o", "out", "--recording", "recording.json", "--recording", "r.json", "--kernel", "good.c"),
                  ("study", "--kernel", "good.c", "--diff", "stable_tree_search")):
        result = run(*words)
        assert (result["code"], result["err"]) == (0, ""), result
        assert result["peak"] < 256 * MIB
    assert json.loads(run("replay", "-", stdin=str(run.folder / "good.json"))["out"])["records"]


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="needs /dev/fd")
def test_process_substitution(run):
    """<(command) is read to its end, as - is."""
    script = """cd "$1" && ksm() { "$python" -m ksm "$@"; } && ksm replay <(cat good.json) &&
        ksm verify --against "$python -m ksm replay --pages --events -" <(cat good.json) &&
        ksm study -o out --recording <(cat r.json) --kernel <(cat good.c)"""
    run("replay", "--record", "r.json", "good.json")
    environment = {**os.environ, "PYTHONPATH": str(HOME), "python": sys.executable}
    done = subprocess.run(["bash", "-c", script, "bash", run.folder], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "w: the same" in done.stdout
