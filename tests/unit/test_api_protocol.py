"""Slow clients, nonsense and a stop: what happens to a connection."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from query_api.deps import Limits
from query_api.protocol import PatientProtocol, protocol
from query_api.server import address_of, bind, server_of
from tests.api_rig import TENANT, Rig, filled, picture, serving
from tests.waiting import wait_until

UPLOAD = f"/v1/tenants/{TENANT}/search/upload"


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """A bare connection to the API."""
    host, _, port = address.removeprefix("http://").partition(":")
    with closing(socket.create_connection((host, int(port)), timeout=20)) as sock:
        yield sock


def received(sock: socket.socket) -> bytes:
    """Everything until the other side hangs up."""
    data = b""
    while chunk := _chunk(sock):
        data += chunk
    return data


def _chunk(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHo"])
def test_who_sends_no_request_is_hung_up_on(said: bytes) -> None:
    """A connection without a whole head is given up, and others are served meanwhile."""
    with serving(filled(1, 1).app(), protocol=protocol(head_s=0.2)) as address, connected(address) as sock:
        sock.sendall(said)
        assert httpx.get(address + "/healthz").status_code == 200
        assert received(sock) == b""


def test_a_head_in_pieces_is_read() -> None:
    """The clock is for the whole head, and ends with it: what follows has its own."""
    with serving(filled(1, 1).app(), protocol=protocol(head_s=5.0)) as address, connected(address) as sock:
        for piece in (b"GET /healthz HT", b"TP/1.1\r\nHost: ", address.removeprefix("http://").encode()):
            sock.sendall(piece)
        sock.sendall(b"\r\nConnection: close\r\n\r\n")
        assert b'{"status":"ok",' in received(sock)


def test_a_body_that_trickles_is_408() -> None:
    """The deadline is the request's, however its bytes are spread; the answer is read before the connection ends."""
    limits = Limits(deadline_s=0.3)
    with serving(filled(1, 1).app(limits=limits)) as address, connected(address) as sock:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: {address.removeprefix('http://')}\r\nContent-Length: 1000\r\n"
        sock.sendall(head.encode() + b"Connection: close\r\n\r\nabc")
        answer = received(sock)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_timeout" in answer


def test_who_reads_no_answer_is_hung_up_on() -> None:
    """An answer that nobody takes fills the buffers, then the connection is given up: not all of it comes."""
    size = 64 * 1024 * 1024  # more than all buffers between here and there hold
    app = Starlette(routes=[Route("/", lambda _: Response(bytes(size)))])
    ended = threading.Event()

    class Watched(PatientProtocol):
        stall_s = 0.2

        def connection_lost(self, exc: Exception | None) -> None:
            ended.set()
            super().connection_lost(exc)

    with serving(app, protocol=Watched) as address, connected(address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert ended.wait(20)
        assert len(received(sock)) < size


def test_who_reads_slowly_gets_all_of_it() -> None:
    """The clock runs only while nothing moves at all."""
    size = 16 * 1024 * 1024
    app = Starlette(routes=[Route("/", lambda _: Response(bytes(size)))])
    with serving(app, protocol=protocol(stall_s=10.0)) as address, connected(address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert len(received(sock).partition(b"\r\n\r\n")[2]) == size


@pytest.mark.parametrize("said", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_is_no_http_gets_the_one_error_body(said: bytes) -> None:
    """It reaches no middleware, and still has code, message and request id."""
    with serving(filled(1, 1).app()) as address, connected(address) as sock:
        sock.sendall(said)
        head, _, body = received(sock).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        error = json.loads(body)["error"]
        assert set(error) == {"code", "message", "field", "request_id"}
        assert error["request_id"].encode() in head


def test_a_stop_lets_what_is_under_way_finish(caplog: pytest.LogCaptureFixture) -> None:
    """A request that the embedder has in hand is answered; the server ends only then."""
    caplog.set_level(logging.INFO, logger="uvicorn.error")
    rig: Rig = filled(2, 2)
    rig.embedder.hold = hold = threading.Event()
    answers: list[httpx.Response] = []
    with bind("127.0.0.1", 0) as listening:
        server = server_of(rig.app(), drain_s=30)
        serving_thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving_thread.start()
        wait_until(lambda: server.started)
        url = address_of(listening) + UPLOAD
        asking = threading.Thread(target=lambda: answers.append(httpx.post(url, content=picture(1, 0), timeout=30)))
        asking.start()
        wait_until(lambda: rig.embedder.n_held == 1)
        server.should_exit = True
        wait_until(lambda: "Waiting for connections to close" in caplog.text)
        hold.set()
        asking.join()
        serving_thread.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["hits"][0]["image_id"] == "f1-m0"
