"""An S3 server that answers what it is told to: for the answers that a real one gives only on a bad day."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Self

HANG = b"hang"
"""Accept the request and say nothing."""
RESET = b"reset"
"""Break the connection without an answer."""


def answer(status: int, body: bytes = b"", *, headers: Iterable[str] = (), length: int | None = None) -> bytes:
    """A raw HTTP answer; `length` promises another length than the body has."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(status: int, code: str) -> bytes:
    """An error in S3's words."""
    body = f"<Error><Code>{code}</Code><Message>{code}!</Message></Error>".encode()
    return answer(status, body, headers=("Content-Type: application/xml",))


def found(body: bytes, *, etag: str = '"e1"', length: int | None = None, more: Iterable[str] = ()) -> bytes:
    """An object."""
    return answer(200, body, headers=(f"ETag: {etag}", "Content-Type: image/jpeg", *more), length=length)


class ScriptedS3:
    """`answers` holds, per "METHOD /bucket/key", what is said: each once in order, the last for ever.

    Whatever has no answer is not there.
    """

    def __init__(self) -> None:
        self.answers: dict[str, deque[bytes]] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, name="scripted-s3", daemon=True)

    def say(self, request: str, *answers: bytes) -> None:
        self.answers[request] = deque(answers)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed: the test is over
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One request a connection, as HTTP allows."""
        try:
            request = self._request(connection)
            said = self._next(request)
            if said == HANG:
                return
            if said == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                head, _, body = said.partition(b"\r\n\r\n")
                quiet = b"" if request.startswith("HEAD") else body
                connection.sendall(head + b"\r\nConnection: close\r\n\r\n" + quiet)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):  # or what was unread would turn the answer into a reset
                    pass
            connection.close()
        except OSError:
            return  # the client has left

    def _request(self, connection: socket.socket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65_536)
        method, target, _ = data.split(b"\r\n", 1)[0].decode().split(" ")
        request = f"{method} {target.split('?')[0]}"
        self.asked.append(request)
        lines = data.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        self.headers.append({name.lower(): value for name, _, value in (line.partition(": ") for line in lines)})
        return request

    def _next(self, request: str) -> bytes:
        answers = self.answers.get(request)
        if not answers:
            return refusal(404, "NoSuchKey")
        return answers.popleft() if len(answers) > 1 else answers[0]
