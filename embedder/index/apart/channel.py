"""Frames over a socket whose ends are two processes of the index."""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from embedder.index.service.wire import HEAD, MAX_FRAME_BYTES, frame


class Channel:
    """Frames on a connected socket; every call blocks but :meth:`readable`."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(True)
        self._poll = select.poll()  # `select.select` ends at file descriptor 1024
        self._poll.register(end, select.POLLIN)

    def send(self, body: bytes) -> None:
        """Hand a frame over. OSError where the other side is gone."""
        self._socket.sendall(frame(body))

    def receive(self) -> bytes | None:
        """The next frame; None where the other side is gone, also in the middle of one."""
        head = self._exactly(HEAD.size)
        if head is None:
            return None
        (length,) = HEAD.unpack(head)
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        return self._exactly(length)

    def fileno(self) -> int:
        """For an event loop, which sees when there is something to receive."""
        return self._socket.fileno()

    def readable(self) -> bool:
        """Whether :meth:`receive` has something to begin with."""
        return bool(self._poll.poll(0))

    def hang_up(self) -> None:
        """Nothing comes and nothing goes any more, for either side."""
        with suppress(OSError):  # the other side is gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, n: int) -> bytes | None:
        parts, missing = [], n
        while missing:  # in one go, but for a signal in between
            try:
                part = self._socket.recv(missing, socket.MSG_WAITALL)
            except ConnectionError:
                return None
            if not part:
                return None
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)
