"""The index process's hand on one holder: the process that has a shard open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from embedder.index.apart.channel import Channel
from embedder.index.apart.line import ROOM_BYTES, Line, Then, gone
from embedder.index.codec import encode
from embedder.index.protocol import CollectionSpec
from streams.errors import DependencyError

CLOSES_WITHIN_S = 30.0
"""A last flush takes a tenth of a second; a process that needs longer hangs."""


class Holder:
    """A process that opens a shard and answers one question after the other. Not thread-safe.

    It ends with the thread that started it, whatever that dies of.
    """

    def __init__(
        self, spec: CollectionSpec, home: Path, *, folder: Path | None = None, inherited: Sequence[int] = ()
    ) -> None:
        """Start it and let it open `folder`, or what the pointer under `home` names; does not wait for that.

        `inherited` are file descriptors that stay open for as long as the process lives.

        Raises:
            DependencyError: no process can be started.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            raise DependencyError("index", f"no process can be started to hold the vectors: {exc}") from exc
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM_BYTES)
        self._channel = Channel(ours)
        self._line = Line(self._channel)
        self._opened = False
        with theirs:
            command = [sys.executable, "-m", "embedder.index.apart.child", str(theirs.fileno()), str(os.getpid())]
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), *inherited), env=_environment()
                )
            except OSError as exc:
                ours.close()
                raise DependencyError("index", f"no process can be started to hold the vectors: {exc}") from exc
        self.post("open", encode((spec, str(home), None if folder is None else str(folder))))

    def opened(self) -> bool:
        """Whether the shard is open; does not wait.

        Raises:
            ConfigError: it cannot be opened.
            DependencyError: the process ended.
        """
        if not self._opened and self._channel.readable():
            self.wait_opened()
        return self._opened

    def wait_opened(self) -> None:
        """Returns when the shard is open; raises as :meth:`opened`."""
        if not self._opened:
            self.take()
            self._opened = True

    def ask(self, operation: str, arguments: bytes | msgspec.Raw) -> msgspec.Raw:
        """The result; raises what the operation raised, and DependencyError where the process ended."""
        self.post(operation, arguments)
        return self.take()

    def post(self, operation: str, arguments: bytes | msgspec.Raw) -> None:
        """Ask without waiting; nothing else may be asked before :meth:`take`."""
        self._line.post(operation, arguments)

    def soon(self, operation: str, arguments: bytes | msgspec.Raw, then: Then) -> None:
        """Ask without waiting: the running event loop reads the answer for `then`. What is asked later comes later."""
        self._line.soon(operation, arguments, then)

    def catch_up(self) -> None:
        """Returns when everything asked for by :meth:`soon` is answered."""
        self._line.catch_up()

    def answered(self) -> bool:
        """Whether :meth:`take` would return at once."""
        return self._channel.readable()

    def take(self) -> msgspec.Raw:
        """The answer to what was posted; waits for it and raises as :meth:`ask`."""
        return self._line.take()

    def unwatch(self) -> None:
        """To be called on the event loop's thread before another one ends the process."""
        self._line.unwatch()

    def check_alive(self) -> None:
        """DependencyError where the process ended."""
        if self._process.poll() is not None:
            raise gone()

    def close(self) -> None:
        """Flush, let go, end. DependencyError where the flush failed, or the process before it."""
        try:
            self.ask("close", encode(None))
            self._process.wait(CLOSES_WITHIN_S)
        except subprocess.TimeoutExpired as exc:
            raise DependencyError("index", "the process that holds the vectors does not end") from exc
        finally:
            self.kill()

    def kill(self) -> None:
        """End it now and wait for that: what was not flushed is in its log."""
        self._process.kill()
        self._process.wait()
        self._line.unwatch()
        self._channel.close()


def _environment() -> dict[str, str]:
    """The caller's, and large pages for what malloc is asked for: the codes of a tenant lie scattered among gigabytes.

    A tunable of glibc from 2.35 on (where the kernel has transparent huge pages for who asks); others ignore it.
    """
    asked_for = [os.environ["GLIBC_TUNABLES"]] if "GLIBC_TUNABLES" in os.environ else []
    return {**os.environ, "GLIBC_TUNABLES": ":".join((*asked_for, "glibc.malloc.hugetlb=1"))}
