"""One embedding child as its parent sees it: a process, a socket, and the thread that reads its answers."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from embedder import query_embedder_wire as wire
from embedder.index.protocol import CollectionSpec
from embedder.process_environment import PROCESS_ENVIRONMENT
from embedder.query_embedder_wire import Want
from streams.errors import DependencyError, EventError, Reason, RetryableError


class ProcessDiedError(Exception):
    """The child ended before it answered."""


class EmbeddingProcess:
    """One child process and the thread that reads its answers."""

    def __init__(
        self, command: Sequence[str], setup: wire.Setup, *, start_s: float, send_s: float, clock: Callable[[], float]
    ) -> None:
        """Starts it and returns at once.

        It is given up after `start_s` without a hello, or when it takes no byte for `send_s`.

        Raises:
            DependencyError: the system starts no process.
        """
        self.hello: Future[CollectionSpec] = Future()
        self._clock = clock
        self._setup = setup
        self._start_s = start_s
        self._started_at = clock()
        self._answered_at = clock()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._asked: dict[int, Future[bytes]] = {}
        self._last_number = 0
        self._gone = False
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = _popen(command, theirs.fileno())
        self._limit_sending(send_s)
        threading.Thread(target=self._read, name="query-embedder", daemon=True).start()

    @property
    def failed_to_start(self) -> DependencyError | None:
        """Why it never got ready."""
        error = self.hello.exception() if self.hello.done() else None
        return error if isinstance(error, DependencyError) else None

    def is_alive(self) -> bool:
        if not self.hello.done() and self._clock() - self._started_at > self._start_s:
            self.end()
        return not self._gone

    def end(self) -> None:
        """Kill it; its reader then fails whatever waits. Calling it again changes nothing."""
        with self._lock:
            self._gone = True  # at once, so that the next try goes to another child
        self._process.kill()

    def ask(self, want: Want, data: bytes, deadline: float) -> bytes:
        """Its answer about one picture."""
        answer: Future[bytes] = Future()
        with self._lock:
            if self._gone:
                raise ProcessDiedError
            self._last_number = number = self._last_number + 1
            self._asked[number] = answer
        asked_at = self._clock()
        try:
            self._send(wire.Ask(number, want, data))
            return answer.result(timeout=max(0.0, deadline - self._clock()))
        except TimeoutError:
            if self._answered_at < asked_at:  # nothing at all came back for the whole deadline: it hangs
                self.end()
            raise
        finally:
            with self._lock:
                self._asked.pop(number, None)

    def _send(self, message: wire.Ask | wire.Setup) -> None:
        try:
            with self._sending:
                wire.send(self._socket, message)
        except OSError as exc:  # it died, or took nothing for `send_s`: half a frame can't be mended
            self.end()
            raise ProcessDiedError from exc

    def _limit_sending(self, limit_s: float) -> None:
        seconds = int(limit_s)
        timeval = struct.pack("ll", seconds, int((limit_s - seconds) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def _read(self) -> None:
        """The thread that reads: ends with the child, and tells everybody who waits."""
        message = self._greet()
        while message is not None:
            self._resolve(wire.decode_reply(message))
            message = wire.receive(self._socket)
        self._process.kill()
        code = self._process.wait()
        if not self.hello.done():
            self.hello.set_exception(
                DependencyError("embedder", f"the embedding process ended with {code} before it was ready")
            )
        self.end()
        with self._lock:
            asked, self._asked = self._asked, {}
        with self._sending:
            self._socket.close()
        for answer in asked.values():
            answer.set_exception(ProcessDiedError())

    def _greet(self) -> bytes | None:
        """Set it up; the first frame after its hello, None where it cannot work."""
        try:
            self._send(self._setup)
        except ProcessDiedError:
            return None
        message = wire.receive(self._socket)
        if message is None:
            return None
        hello = wire.decode_hello(message)
        if isinstance(hello, wire.Refused):
            self.hello.set_exception(DependencyError("embedder", hello.message))
            return None
        self._answered_at = self._clock()
        self.hello.set_result(CollectionSpec(hello.model_id, hello.preprocessing_id, hello.dim))
        return wire.receive(self._socket)

    def _resolve(self, reply: wire.Reply) -> None:
        self._answered_at = self._clock()
        with self._lock:
            answer = self._asked.pop(reply.number, None)
        if answer is None:
            return  # whoever asked has given up
        if reply.failure is None:
            answer.set_result(reply.data)
        else:
            answer.set_exception(_error_of(reply.failure))


def _popen(command: Sequence[str], fd: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [*command, str(fd)],
            pass_fds=(fd,),
            env={**PROCESS_ENVIRONMENT, **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=2,  # stdout is for what the user asked for
            process_group=0,  # a Ctrl-C is meant for us: we end it when we are done
        )
    except OSError as exc:
        raise DependencyError("embedder", f"the embedding process cannot be started: {exc.strerror}") from exc


def _error_of(failure: wire.Failure) -> EventError | RetryableError:
    reason = Reason(failure.reason)
    return EventError(reason, failure.message) if failure.for_good else RetryableError(reason, failure.message)
