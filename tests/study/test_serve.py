# SPDX-License-Identifier: GPL-2.0-only
"""`ksm study --serve` without a browser: what a visitor may do, who may come in, and what is left when he has gone."""

import gc
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from visitor import Twin, serving, state_of

from ksm.study.serve.actions import ACTIONS, MOST_ACTIONS, MOST_PROCESSES, ActionError, World
from ksm.study.serve.server import LARGEST, MOST_CONNECTIONS, Server
from ksm.study.serve.visits import GoneError, Visits

pytestmark = pytest.mark.once

SENTENCE = re.compile(r"[A-Z“].*[.]", re.DOTALL)


@pytest.fixture
def world():
    made = World()
    made.begun()
    yield made
    assert made.machine.check() == []
    made.close()


# Actions

@pytest.mark.parametrize("era", ["2.6.38", "6.1", "6.12", "7.3"])
def test_actions_are_the_calls_that_they_say(era):
    world, twin = World(era), Twin(era)
    world.begun()
    for action in twin.random(200, seed=1):
        world.do(action)
    assert state_of(world.machine) == state_of(twin.machine)
    assert world.machine.check() == twin.machine.check() == []
    assert {(process["name"], process["mm"]) for process in world.answer()["processes"]} == {
        (process.name, process.mm_id) for process in twin.machine.processes.values()}
    world.close()
    twin.machine.close()


WRONG = [
    None, [], "scan", 3, {}, {"do": None}, {"do": "nothing"}, {"do": "scan"}, {"do": "scan", "passes": 1, "more": 1},
    {"do": "scan", "passes": 0}, {"do": "scan", "passes": 11}, {"do": "scan", "passes": True}, {"do": "scan", "passes": "1"},
    {"do": "scan", "passes": 1e9}, {"do": "scan", "passes": 10**30}, {"do": "visit", "pages": -1}, {"do": "write", "process": "alice"},
    {"do": "write", "process": "zed", "page": 1, "text": "x"}, {"do": "write", "process": {}, "page": 1, "text": "x"},
    {"do": "write", "process": "alice", "page": 4, "text": "x"}, {"do": "write", "process": "alice", "page": 1, "text": "x" * 21},
    {"do": "write", "process": "alice", "page": 1, "text": "é"}, {"do": "write", "process": "alice", "page": 1, "text": 5},
    {"do": "write", "process": "alice", "page": 1, "text": "\ud800"}, {"do": "write", "process": "\ud800", "page": 1, "text": ""},
    {"do": "madvise", "process": "alice", "mergeable": 1}, {"do": "set", "name": "run", "value": 1},
    {"do": "set", "name": "max_page_sharing", "value": 1}, {"do": "set", "name": [], "value": 1}, {"do": "close"}, {"do": "__class__"},
]


@pytest.mark.parametrize("action", WRONG, ids=repr)
def test_a_wrong_action_gets_a_sentence(world, action):
    before = state_of(world.machine)
    with pytest.raises(ActionError) as error:
        world.do(action)
    assert SENTENCE.fullmatch(str(error.value)) and len(str(error.value)) < 300
    assert state_of(world.machine) == before


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                           lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=5)
near = st.one_of(json_values, st.sampled_from(["alice", "bob", "max_page_sharing", "", "x"]), st.integers(-1, 12))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(list(ACTIONS)).flatmap(
    lambda name: st.fixed_dictionaries({"do": st.just(name), **dict.fromkeys(ACTIONS[name][0], near)})), max_size=8))
def test_whatever_comes_is_done_or_refused(actions):
    world = World()
    try:
        world.begun()
        for action in actions:
            try:
                json.dumps(world.do(action)).encode()
            except ActionError as error:
                assert str(error).encode()
        assert world.machine.check() == []
    finally:
        world.close()


def test_what_the_kernel_refuses_is_named(world):
    world.do({"do": "scan", "passes": 3})
    with pytest.raises(ActionError, match=r"^The kernel answers EBUSY: .* merged\.$"):
        world.do({"do": "set", "name": "max_page_sharing", "value": 2})
    old = World("2.6.38")
    old.begun()
    with pytest.raises(ActionError, match=r"The KSM of Linux 2\.6\.38 has no max_page_sharing\."):
        old.do({"do": "set", "name": "max_page_sharing", "value": 2})
    old.close()


def test_a_world_is_bounded(world):
    for _ in range(MOST_PROCESSES - 2):
        world.do({"do": "fork", "process": "alice"})
    for action in ({"do": "fork", "process": "alice"}, {"do": "spawn"}):
        with pytest.raises(ActionError, match="has to exit first"):
            world.do(action)
    world.do({"do": "exit", "process": "bob"})
    world.do({"do": "spawn"})
    world.actions = MOST_ACTIONS
    with pytest.raises(ActionError, match="Begin anew"):
        world.do({"do": "scan", "passes": 1})
    assert not world.recording.truncated


def test_every_step_and_note_comes_once(world):
    one = world.do({"do": "write", "process": "alice", "page": 1, "text": "x"})
    assert one["notes"] == ["alice has written “x” into page 1."] and one["contents"] == ["x"]
    (note,) = world.do({"do": "scan", "passes": 1})["notes"]
    assert note.startswith("ksmd rests")
    world.do({"do": "madvise", "process": "alice", "mergeable": False})
    world.do({"do": "madvise", "process": "bob", "mergeable": False})
    assert world.do({"do": "scan", "passes": 1})["notes"] == ["ksmd has nothing to look at: nobody has said madvise(MADV_MERGEABLE)."]


# Visits

def test_each_visitor_has_a_machine_of_his_own():
    visits = Visits()
    a, b = (visits.begin("6.12")["visit"] for _ in range(2))
    assert a != b and len(a) >= 32
    visits.do(a, {"do": "write", "process": "alice", "page": 1, "text": "mine"})
    worlds = [visits.visits[name].world for name in (a, b)]
    first = [next(iter(world.machine.processes.values())) for world in worlds]
    assert [process.read(process.maps()[0].start, 4) for process in first] == [b"mine", b"the "]
    for wrong in (None, "", a[:-1], 5, [a]):
        with pytest.raises(GoneError):
            visits.do(wrong, {"do": "scan", "passes": 1})
    visits.close()
    assert all(world.machine.closed for world in worlds)


def test_the_visitor_who_was_idle_for_the_longest_goes_for_a_new_one():
    visits = Visits(most=3)
    names = [visits.begin("6.12")["visit"] for _ in range(3)]
    visits.do(names[0], {"do": "scan", "passes": 1})
    worlds = {name: visits.visits[name].world for name in names}
    new = visits.begin("7.3")["visit"]
    assert set(visits.visits) == {names[0], names[2], new}
    assert worlds[names[1]].machine.closed and not worlds[names[0]].machine.closed
    # Beginning anew takes the place of the visitor's own machine.
    again = visits.begin("2.6.38", names[0])
    assert set(visits.visits) == {names[2], new, again["visit"]} and worlds[names[0]].machine.closed and again["era"] == "2.6.38"
    with pytest.raises(ActionError, match="no era “5”"):
        visits.begin("5", new)
    assert new in visits.visits
    visits.close()


def test_many_at_once():
    visits = Visits(most=4)
    failed = []

    def visit():
        try:
            for _ in range(5):
                name = visits.begin("6.12")["visit"]
                for _ in range(5):
                    try:
                        visits.do(name, {"do": "scan", "passes": 1})
                    except GoneError:
                        break
        except GoneError:
            pass
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=visit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(visits.visits) <= 4
    visits.close()


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_visits_that_were_left_cost_no_memory():
    def crowd(count):
        for _ in range(count):
            name = visits.begin("6.12")["visit"]
            visits.do(name, {"do": "scan", "passes": 3})
        assert len(visits.visits) == count
        full = resident()
        time.sleep(0.06)
        assert visits.sweep() == count and visits.visits == {}
        gc.collect()
        return full

    visits = Visits(most=100, idle=0.05)
    crowd(100)
    before = resident()
    fulls = [crowd(100) for _ in range(4)]
    # What malloc() keeps differs a little from time to time. The machines of one crowd have more.
    cost = max(fulls) - before
    assert 8 << 20 < cost < 100 << 20
    assert resident() - before < cost // 2
    visits.close()


# The server

@pytest.fixture
def server():
    with serving("<!doctype html><p>the page</p>", idle=60.0) as made:
        yield made


def ask(server, method="POST", path=None, body=None, **headers):
    """A request as the page sends it, but for what is given; None leaves a header out."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    mine = {"Host": server.hosts[0], "Origin": f"http://{server.hosts[0]}", "Content-Type": "application/json", **headers}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.putrequest(method, f"/{server.token}/do" if path is None else path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Content-Length": str(len(data)), **{name.replace("_", "-"): value for name, value in mine.items()}}.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer, text


def test_the_page_and_the_machine(server):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", server.address)
    answer, text = ask(server, "GET", f"/{server.token}/")
    assert (answer.status, text) == (200, b"<!doctype html><p>the page</p>")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Server"] == "ksm" and "Set-Cookie" not in answer.headers
    answer, text = ask(server, body={"do": "begin", "era": "6.12"})
    visit = json.loads(text)["visit"]
    answer, text = ask(server, body={"do": "scan", "passes": 3, "visit": visit})
    assert answer.status == 200 and len(json.loads(text)["steps"]) > 50
    answer, text = ask(server, body={"do": "scan", "passes": 99, "visit": visit})
    assert (answer.status, json.loads(text)) == (400, {"error": "“passes” is a number from 1 to 10."})
    answer, text = ask(server, body={"do": "scan", "passes": 1, "visit": "nobody's"})
    assert answer.status == 410 and "Begin anew." in json.loads(text)["error"]


@pytest.mark.parametrize(("status", "method", "path", "headers"), [
    (404, "GET", "/", {}), (404, "GET", "/do", {}), (404, "GET", "/../../etc/passwd", {}), (404, "GET", "/%2e%2e/etc/passwd", {}),
    (404, "GET", "{token}/../etc/passwd", {}), (404, "GET", "{token}//etc/passwd", {}), (404, "GET", "{token}/do", {}),
    (404, "POST", "{token}/", {}), (404, "POST", "/do", {}),
    (403, "GET", "{token}/", {"Host": "evil.example"}), (403, "GET", "{token}/", {"Host": None}),
    (403, "POST", None, {"Host": "evil.example", "Origin": "http://evil.example"}), (403, "POST", None, {"Origin": None}),
    (403, "POST", None, {"Origin": "http://evil.example"}), (403, "POST", None, {"Origin": "null"}),
    (415, "POST", None, {"Content_Type": "text/plain"}), (415, "POST", None, {"Content_Type": None}),
    (415, "POST", None, {"Content_Type": "application/x-www-form-urlencoded"}),
    (411, "POST", None, {"Content_Length": None}), (411, "POST", None, {"Content_Length": "-1"}),
    (411, "POST", None, {"Transfer_Encoding": "chunked"}), (413, "POST", None, {"Content_Length": str(LARGEST + 1)}),
    (413, "POST", None, {"Content_Length": "9" * 5000}),
    (501, "PUT", None, {}), (501, "DELETE", "/", {}), (501, "OPTIONS", None, {}), (501, "TRACE", None, {}),
])
def test_who_may_not_come_in(server, status, method, path, headers):
    path = path and path.replace("{token}", f"/{server.token}")
    answer, text = ask(server, method, path, {"do": "begin", "era": "6.12"}, **headers)
    assert answer.status == status and json.loads(text)["error"] and "Traceback" not in text.decode()
    assert server.token not in text.decode() and server.visits.visits == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * LARGEST, b'{"do": "begin", "era": 7}', b'{"a":' * 500,
                                  b"1" * 4096])
def test_what_is_no_action_gets_a_sentence(server, body):
    answer, text = ask(server, body=body)
    assert answer.status == 400 and SENTENCE.fullmatch(json.loads(text)["error"])


def test_a_line_that_is_no_http_is_answered_and_forgotten(server):
    for line in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70000 + b"\r\n\r\n",
                 b"GET /\xff HTTP/1.1\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", server.server_port), 5) as connection:
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := connection.recv(65536):
                    answer += piece
            except ConnectionResetError:
                pass
            assert b"Traceback" not in answer
    assert ask(server, "GET", f"/{server.token}/")[0].status == 200


def test_connections_that_stand_still_are_bounded_and_end(server, monkeypatch):
    monkeypatch.setattr("ksm.study.serve.server.Handler.timeout", 0.3)
    still = [socket.create_connection(("127.0.0.1", server.server_port), 5) for _ in range(MOST_CONNECTIONS + 5)]
    closed = 0
    for connection in still:
        connection.settimeout(5)
        try:
            closed += connection.recv(1) == b""
        except ConnectionResetError:
            closed += 1
        connection.close()
    assert closed == len(still)
    deadline = time.monotonic() + 5
    while True:
        try:
            assert ask(server, "GET", f"/{server.token}/")[0].status == 200
            break
        except (ConnectionResetError, http.client.RemoteDisconnected):
            assert time.monotonic() < deadline


def test_idle_visits_end_by_themselves():
    made = Server("", idle=0.1)
    try:
        made.visits.begin("6.12")
        deadline = time.monotonic() + 5
        while made.visits.visits:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        made.close()


def test_the_command(tmp_path):
    command = subprocess.Popen([sys.executable, "-m", "ksm", "study", "--serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               cwd=tmp_path)
    try:
        address = command.stdout.readline().strip()
        port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", address).groups()
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        connection.request("GET", f"/{token}/")
        page = connection.getresponse().read().decode()
        assert "function liveMachine()" in page and 'id="door-runs"' not in page
        connection.close()
        again = [sys.executable, "-m", "ksm", "study", "--serve", "--port", port]
        second = subprocess.run(again, capture_output=True, text=True, check=False)
        assert (second.returncode, second.stderr) == (1, f"ksm: port {port} of 127.0.0.1 cannot be used: Address already in use\n")
        # Nobody else's address leads here.
        with socket.socket() as elsewhere, pytest.raises(OSError):
            elsewhere.settimeout(2)
            elsewhere.connect(("127.0.0.2", int(port)))
    finally:
        command.send_signal(signal.SIGINT)
        _, error = command.communicate(timeout=10)
    assert command.returncode == 130 and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
