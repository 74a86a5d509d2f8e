"""One open socket to the index process: many calls under way, one thread that reads the answers."""

from __future__ import annotations

import select
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import msgspec

from embedder.index.service.wire import HEAD, MAX_FRAME_BYTES, Answer, decode_answer, frame, raised
from streams.errors import DependencyError
from streams.threads import name_this_thread

HANGS_AFTER_S = 30.0
"""A write waits for a flush and perhaps for maintenance; longer than this the process is given up."""


class Connection:
    """Never mended: when it breaks, every call under way fails and a new one is made. Thread-safe."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        """Connect. `timeout_s` is for that, and for handing one request over.

        Raises:
            DependencyError: nobody answers at `path`.
        """
        self._timeout_s = timeout_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as exc:
            self._socket.close()
            raise DependencyError(
                "index", f"the index process does not answer at {path}: {exc.strerror or exc}"
            ) from exc
        self._lock = threading.Lock()  # of what is under way: never held while something is sent
        self._sending = threading.Lock()
        self._under_way: dict[int, tuple[Future[msgspec.Raw], float]] = {}
        self._buffer = bytearray()
        self._broken: DependencyError | None = None
        self._reader = threading.Thread(target=self._read, name="index-answers", daemon=True)
        self._reader.start()

    @property
    def broken(self) -> bool:
        """Whether it must not be used any more."""
        return self._broken is not None

    def send(self, request_id: int, body: bytes) -> Future[msgspec.Raw]:
        """Hand a request over; blocks while the process does not read, `timeout_s` at most.

        Raises:
            ValueError: it is larger than a frame may be; nothing was sent.
            DependencyError: it is broken already; what breaks it later fails the future.
        """
        message = frame(body)
        future: Future[msgspec.Raw] = Future()
        with self._lock:
            if self._broken is not None:
                raise self._broken
            self._under_way[request_id] = (future, time.monotonic())
        if not self._sending.acquire(timeout=self._timeout_s):
            self.close(f"the index process has not read for {self._timeout_s:g} s")
            return future  # failed by the line above, as everything under way
        try:
            self._socket.sendall(message)
        except OSError as exc:  # half of it may be there: nothing can follow
            self.close(f"the index process went away: {exc.strerror or exc}")
        finally:
            self._sending.release()
        return future

    def close(self, why: str = "the connection to the index was closed") -> None:
        """Fail what is under way; may be called twice, from any thread."""
        with self._lock:
            if self._broken is None:
                self._broken = DependencyError("index", why)
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader, which closes it
                except OSError:
                    self._socket.close()  # it was not connected any more
            failed, self._under_way = self._under_way, {}
            broken = self._broken
        for future, _at in failed.values():
            future.set_exception(broken)

    def _read(self) -> None:
        name_this_thread("index-answers")
        why = "the index process went away"
        try:
            while (answer := self._next()) is not None:
                with self._lock:
                    future, _at = self._under_way.pop(answer.id, (None, 0.0))
                if future is None:
                    continue  # its caller gave up waiting
                if answer.error is not None:
                    future.set_exception(raised(answer.error))
                else:
                    future.set_result(answer.result.copy())
        except (OSError, ValueError) as exc:
            why = f"the index process went away: {exc}"
        finally:
            self.close(why)
            self._socket.close()

    def _next(self) -> Answer | None:
        head = self._receive(HEAD.size)
        if head is None:
            return None
        (length,) = HEAD.unpack(head)
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        body = self._receive(length)
        return None if body is None else decode_answer(body)

    def _receive(self, n: int) -> bytes | None:
        """The next `n` bytes, None at the end of the stream; gives a process up that does not answer any more."""
        while len(self._buffer) < n:
            readable, _, _ = select.select([self._socket], [], [], 1.0)
            if not readable:
                self._check_silence()
                continue
            part = self._socket.recv(1 << 18)
            if not part:
                return None
            self._buffer += part
        taken = bytes(self._buffer[:n])
        del self._buffer[:n]
        return taken

    def _check_silence(self) -> None:
        with self._lock:
            oldest = min((at for _future, at in self._under_way.values()), default=None)
        if oldest is not None and time.monotonic() - oldest > HANGS_AFTER_S:
            raise ValueError(f"no answer for {HANGS_AFTER_S:g} s")
