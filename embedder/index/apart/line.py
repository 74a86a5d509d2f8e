"""Questions to one holder: several under way, answered in the order of asking."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

import msgspec

from embedder.index.apart.channel import Channel
from embedder.index.codec import encode
from embedder.index.service.wire import decode_answer, raised
from streams.errors import DependencyError, LookalikeError

MAX_ASKED, MAX_ASKED_BYTES = 64, 64 << 10
"""What is handed over before its answer is read lies in the socket. With what the kernel adds to each message that is
165 kB at most (measured with messages of every size), and the socket has room for `ROOM_BYTES`. So handing over never
waits for a holder that itself waits for its answer to be read."""
ROOM_BYTES = 256 << 10
"""What to ask the kernel for; it gives `net.core.wmem_max` at most, and doubles that (socket(7))."""

Answer = msgspec.Raw | Exception
"""What the operation gave, or raised."""
Then = Callable[[Answer], None]


class Line:
    """Not thread-safe. Either waits for an answer (:meth:`take`) or lets an event loop do so (:meth:`soon`).

    The holder has its next question before the last answer was read: on two cores that is half as many searches
    again (docs/index.md).
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ids = itertools.count()
        self._asked: deque[tuple[Then, int, int]] = deque()
        self._posted = -1
        self._asked_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def post(self, operation: str, arguments: bytes | msgspec.Raw) -> None:
        """Ask; nothing else may be asked before :meth:`take`. What was asked for by :meth:`soon` is answered first.

        Raises:
            DependencyError: the holder ended.
        """
        self.catch_up()
        self._posted = self._send(operation, arguments)

    def take(self) -> msgspec.Raw:
        """The answer to what was posted; waits for it, and raises what the operation raised."""
        return self._answer_to(self._posted)

    def soon(self, operation: str, arguments: bytes | msgspec.Raw, then: Then) -> None:
        """Ask; `then` is called once with the answer, by the running loop or by whoever asks next and has to wait.

        So nothing that is asked later, however long it takes, keeps an answer back. `then` must not raise.

        Raises:
            DependencyError: the holder ended; `then` is not called.
        """
        while self._asked and (len(self._asked) >= MAX_ASKED or self._asked_bytes + len(arguments) > MAX_ASKED_BYTES):
            self._take_first()
        if self._loop is None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._channel.fileno(), self._read)
            self._loop = loop
        number = self._send(operation, arguments)
        self._asked.append((then, number, len(arguments)))
        self._asked_bytes += len(arguments)

    def catch_up(self) -> None:
        """Wait for everything that was asked for by :meth:`soon`."""
        while self._asked:
            self._take_first()

    def unwatch(self) -> None:
        """Nothing is read by a loop any more: to be called on its thread, before the channel is closed."""
        if self._loop is not None:
            self._loop.remove_reader(self._channel.fileno())
            self._loop = None

    def _send(self, operation: str, arguments: bytes | msgspec.Raw) -> int:
        number = next(self._ids)
        try:
            self._channel.send(encode((number, operation, "", msgspec.Raw(arguments))))
        except OSError as exc:
            raise gone() from exc
        return number

    def _read(self) -> None:
        """The loop saw an answer, or the end of the holder."""
        if not self._channel.readable():  # whoever waited meanwhile has taken it: the next one is not there yet
            return
        if self._asked:
            self._take_first()
        else:
            self.unwatch()  # else the loop would see that end for ever

    def _take_first(self) -> None:
        then, number, n_bytes = self._asked.popleft()
        self._asked_bytes -= n_bytes
        answer: Answer
        try:
            answer = self._answer_to(number)
        except (LookalikeError, ValueError, RuntimeError) as exc:  # what `raised` makes, and a frame too large
            answer = exc
        then(answer)

    def _answer_to(self, number: int) -> msgspec.Raw:
        body = self._channel.receive()
        if body is None:
            raise gone()
        answer = decode_answer(body)
        if answer.id != number:  # another question's answer may be another tenant's: nothing more is believed
            self._channel.hang_up()
            raise gone()
        if answer.error is not None:
            raise raised(answer.error)
        return answer.result


def gone() -> DependencyError:
    """What everybody is told whose holder ended."""
    return DependencyError("index", "the process that holds the vectors ended")
