"""Questions to a holder: handed over before the last is answered, answered in order, never so many that both wait."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest

from embedder.index.apart.channel import Channel
from embedder.index.apart.line import MAX_ASKED, MAX_ASKED_BYTES, ROOM_BYTES, Line
from embedder.index.codec import encode
from embedder.index.service.wire import Request, decode_request, error_data
from streams.errors import DependencyError, QueryError


class Ends:
    """Both ends of a line; what a holder does is the test's."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM_BYTES)
        self.channel, self.holder = Channel(ours), Channel(theirs)
        self.line = Line(self.channel)

    def soon(self, arguments: object) -> asyncio.Future[msgspec.Raw]:
        """A question whose answer is awaited."""
        answered: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()

        def then(answer: msgspec.Raw | Exception) -> None:
            if isinstance(answer, Exception):
                answered.set_exception(answer)
            else:
                answered.set_result(answer)

        self.line.soon("search", encode(arguments), then)
        return answered

    def next(self) -> Request:
        """What the holder is asked next."""
        body = self.holder.receive()
        assert body is not None
        return decode_request(body)

    def answer(self, request: Request, result: object = None) -> None:
        self.holder.send(encode((request.id, None, result)))


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    with closing(both.channel), closing(both.holder):
        yield both


def value(raw: msgspec.Raw) -> object:
    return msgspec.msgpack.decode(raw)


def test_the_next_question_is_there_before_the_last_is_answered(ends: Ends) -> None:
    async def ask() -> list[object]:
        asked = [ends.soon(n) for n in range(3)]
        requests = [ends.next() for _ in range(3)]
        assert not any(one.done() for one in asked)
        for request in requests:
            ends.answer(request, value(request.arguments))
        return [value(await one) for one in asked]

    assert asyncio.run(ask()) == [0, 1, 2]


def test_who_waits_gets_its_own_answer_and_the_others_theirs(ends: Ends) -> None:
    """A write is asked for and waited for, with searches under way."""

    def hold() -> None:
        for _ in range(3):
            request = ends.next()
            ends.answer(request, [request.operation, value(request.arguments)])

    async def ask() -> tuple[object, list[object]]:
        before = [ends.soon(n) for n in range(2)]
        ends.line.post("write_now", encode(7))
        mine = value(ends.line.take())
        return mine, [value(await one) for one in before]

    assert with_holder(hold, lambda: asyncio.run(ask())) == (["write_now", 7], [["search", 0], ["search", 1]])


def test_an_error_is_of_the_one_who_asked(ends: Ends) -> None:
    async def ask() -> None:
        wrong, right = ends.soon(0), ends.soon(1)
        first, second = ends.next(), ends.next()
        ends.holder.send(encode((first.id, error_data(QueryError(404, "image_not_found", "no such image")), None)))
        ends.answer(second, "found")
        with pytest.raises(QueryError, match="no such image"):
            await wrong
        assert value(await right) == "found"

    asyncio.run(ask())


def test_an_answer_is_handed_on_before_anything_else_is_waited_for(ends: Ends) -> None:
    """Who asks and waits holds the loop up: a search that is answered meanwhile must not wait for that as well."""
    order: list[str] = []

    def hold() -> None:
        ends.answer(ends.next())
        write = ends.next()
        order.append("the write is begun")
        ends.answer(write)

    async def ask() -> None:
        ends.line.soon("search", encode(None), lambda _answer: order.append("the search is answered"))
        ends.line.post("write_now", encode(None))
        ends.line.take()

    with_holder(hold, lambda: asyncio.run(ask()))
    assert order == ["the search is answered", "the write is begun"]


def test_a_holder_that_ends_is_told_to_everybody_and_looked_at_no_more(ends: Ends) -> None:
    """Its end of the socket is readable for ever: a loop that goes on looking would do nothing else."""

    async def ask() -> None:
        asked = [ends.soon(n) for n in range(2)]
        ends.holder.close()
        for one in asked:
            with pytest.raises(DependencyError, match="ended"):
                await one
        while ends.line._loop is not None:
            await asyncio.sleep(0)
        with pytest.raises(DependencyError, match="ended"):
            ends.soon(2)

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_an_answer_that_was_taken_is_not_waited_for_again(ends: Ends) -> None:
    """The loop has seen an answer, and somebody who waits takes it first: the next one may take long."""
    slow_asked = threading.Event()
    turned = threading.Event()

    def hold() -> None:
        ends.answer(ends.next())
        arrived.set()
        ends.answer(ends.next())
        slow = ends.next()
        slow_asked.set()
        assert turned.wait(30), "the loop stands still for a question that is not answered yet"
        ends.answer(slow)

    async def ask() -> None:
        quick = ends.soon("quick")
        assert arrived.wait(30)
        loop = asyncio.get_running_loop()
        answered: list[asyncio.Future[msgspec.Raw]] = []

        def write_and_ask() -> None:  # in the turn in which the loop sees the answer, before it gets to read it
            ends.line.post("write_now", encode(None))
            ends.line.take()
            answered.append(ends.soon("slow"))
            loop.call_soon(turned.set)

        loop.call_soon(write_and_ask)
        await quick
        assert slow_asked.wait(30)
        await answered[0]

    arrived = threading.Event()
    with_holder(hold, lambda: asyncio.run(ask()))


def test_an_answer_of_another_number_is_believed_by_nobody(ends: Ends) -> None:
    """It may be another tenant's."""

    async def ask() -> None:
        asked = [ends.soon(n) for n in range(2)]
        _first, second = ends.next(), ends.next()
        ends.answer(second, "of another tenant")
        for one in asked:
            with pytest.raises(DependencyError, match="ended"):
                await one

    asyncio.run(asyncio.wait_for(ask(), 30))


@pytest.mark.parametrize("question", [b"", bytes(1_700), bytes(5_000), bytes(MAX_ASKED_BYTES), bytes(4 << 20)])
def test_no_two_wait_for_each_other(ends: Ends, question: bytes) -> None:
    """A holder that hands over a large answer reads no question, and who hands over a question reads no answer."""
    n = MAX_ASKED * 3 if len(question) < MAX_ASKED_BYTES else 5
    large = bytes(1 << 20)

    def hold() -> None:
        for _ in range(n + 1):
            ends.answer(ends.next(), large)

    async def ask() -> int:
        asked = [ends.soon(question) for _ in range(n)]
        ends.line.post("write_now", encode(question))
        ends.line.take()
        answers = [bytes(await one) for one in asked]
        return sum(len(one) > len(large) for one in answers)

    assert with_holder(hold, lambda: asyncio.run(ask())) == n


def test_only_so_much_is_under_way(ends: Ends) -> None:
    """With more, the first answer is waited for; by number and by size."""

    def hold() -> None:
        for _ in range(MAX_ASKED + 3):
            ends.answer(ends.next())

    async def ask() -> tuple[int, int]:
        asked = [ends.soon(None) for _ in range(MAX_ASKED + 1)]
        by_number = sum(not one.done() for one in asked)
        asked += [ends.soon(bytes(MAX_ASKED_BYTES)) for _ in range(2)]
        by_size = sum(not one.done() for one in asked)
        await asyncio.gather(*asked)
        return by_number, by_size

    assert with_holder(hold, lambda: asyncio.run(ask())) == (MAX_ASKED, 1)


def with_holder(hold: Callable[[], None], ask: Callable[[], object]) -> object:
    """What `ask` gives while `hold` answers in a thread."""
    result: list[object] = []
    threads = [
        threading.Thread(target=hold, daemon=True),
        threading.Thread(target=lambda: result.append(ask()), daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it hangs"
    return result[0]
