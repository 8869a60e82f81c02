# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a machine behind a page.
"""The server of `ksm study --serve`: one page, and one address to which it sends actions. There is nothing else, and no file is read.

It listens on 127.0.0.1. The address has a token that cannot be guessed, so that other users of this computer do not have it. A page of the
web that knows it still gets nothing: the Host of each request has to be this server (DNS rebinding), an action has to come from its own
page (Origin), and as JSON. A visit is named in the body, not by a cookie, which every server of 127.0.0.1 would be sent.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ksm.study.serve.actions import ActionError
from ksm.study.serve.visits import IDLE, MOST, GoneError, Visits

ADDRESS = "127.0.0.1"
LARGEST = 4096  # bytes of an action
MOST_CONNECTIONS = 32
TIMEOUT = 10.0  # seconds that a connection may stand still
SWEEP = 15.0  # seconds between two looks for idle visits
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
                               "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """The page, at `address`, which has the token. serve_forever() serves; close() ends it, and all machines.

    page    the HTML
    port    0: one that is free
    most    visitors at once
    idle    seconds after which a visit that does nothing ends
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, page: str, port: int = 0, *, most: int = MOST, idle: float = IDLE) -> None:
        super().__init__((ADDRESS, port), Handler)
        self.page = page.encode()
        self.token = secrets.token_urlsafe(24)
        self.visits = Visits(most, idle)
        self.places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.ended = threading.Event()
        self.hosts = tuple(f"{name}:{self.server_port}" for name in (ADDRESS, "localhost"))
        self.address = f"http://{self.hosts[0]}/{self.token}/"
        threading.Thread(target=self.sweep, name="ksm study: idle visits", daemon=True).start()

    def sweep(self) -> None:
        while not self.ended.wait(min(SWEEP, self.visits.idle / 2)):
            self.visits.sweep()

    def close(self) -> None:
        self.ended.set()
        self.server_close()
        self.visits.close()

    # As many connections as there are places; the others are closed.

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is nobody's business."""


class Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT
    server: Server

    def version_string(self) -> str:
        return "ksm"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.known("") and self.is_for_us():
            self.answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        if not (self.known("do") and self.is_for_us() and self.is_ours()):
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self.refuse(HTTPStatus.LENGTH_REQUIRED, "An action has a length.")
        elif len(length) > 6 or int(length) > LARGEST:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"An action has {LARGEST} bytes at most.")
        else:
            try:
                body = self.rfile.read(int(length))
            except TimeoutError:
                return
            self.act(body)

    def act(self, body: bytes) -> None:
        try:
            action = json.loads(body)
            if not isinstance(action, dict):
                raise ActionError("An action is an object of JSON.")
            visit = action.pop("visit", None)
            visits = self.server.visits
            begins = action.get("do") == "begin"
            answer = visits.begin(action.get("era"), visit) if begins else visits.do(visit, action)
        except (ValueError, RecursionError):
            self.refuse(HTTPStatus.BAD_REQUEST, "An action is an object of JSON.")
        except ActionError as error:
            self.refuse(HTTPStatus.BAD_REQUEST, str(error))
        except GoneError as error:
            self.refuse(HTTPStatus.GONE, str(error))
        except (MemoryError, OSError):  # a machine could not be made
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "There is no memory for this now.")
        else:
            self.answer(HTTPStatus.OK, json.dumps(answer, separators=(",", ":")).encode(), "application/json")

    # Who may come in

    def known(self, name: str) -> bool:
        if hmac.compare_digest(self.path.encode(), f"/{self.server.token}/{name}".encode()):
            return True
        self.refuse(HTTPStatus.NOT_FOUND, "There is nothing here. The address that ksm study has printed leads to the page.")
        return False

    def is_for_us(self) -> bool:
        """Whether the request was meant for this server: a name that leads here by other means is not among its names."""
        if any(self.headers.get_all("Host") == [host] for host in self.server.hosts):
            return True
        self.refuse(HTTPStatus.FORBIDDEN, "This server has another name.")
        return False

    def is_ours(self) -> bool:
        """Whether the action was sent by our page."""
        if self.headers.get_all("Origin") != [f"http://{self.headers['Host']}"]:
            self.refuse(HTTPStatus.FORBIDDEN, "Actions come from the page itself.")
        elif self.headers.get_all("Content-Type") != ["application/json"]:
            self.refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "An action is JSON.")
        else:
            return True
        return False

    def refuse(self, status: HTTPStatus, sentence: str) -> None:
        self.answer(status, json.dumps({"error": sentence}).encode(), "application/json")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses by itself: a method, a request line."""
        self.refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
