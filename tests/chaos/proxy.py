"""A connection that can be cut: between the workers and the broker (TCP), or the index (unix socket)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

Address = int | Path
"""A port of 127.0.0.1, or the path of a unix socket."""
Rewrite = Callable[[bytes], bytes]
"""What a Kafka request (without its length) becomes on its way to the broker; of the same length."""


class Proxy:
    """Passes bytes on, on a thread of its own. Every method returns when it has taken effect."""

    def __init__(self, *, listen: Address, target: Address, rewrite: Rewrite | None = None) -> None:
        """`rewrite` sees whole Kafka requests; without it bytes are passed as they come."""
        self._listen = listen
        self._target = target
        self._rewrite = rewrite
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self.accepted = 0
        """How many connections were made through it so far."""

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._run(self._cut())

    def mend(self) -> None:
        """Accept connections again."""
        self._run(self._mend())

    def freeze(self) -> None:
        """Half-open: connections stay, new ones are accepted, nothing is passed on."""
        self._run(self._set_flowing(False))

    def thaw(self) -> None:
        """Pass on what was held back, and go on."""
        self._run(self._set_flowing(True))

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._set_flowing(True))
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, action: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(action, self._loop)
        done.result(10)

    async def _set_flowing(self, flowing: bool) -> None:
        (self._flowing.set if flowing else self._flowing.clear)()

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        if isinstance(self._listen, Path):
            self._listen.unlink(missing_ok=True)

    async def _mend(self) -> None:
        if isinstance(self._listen, Path):
            self._server = await asyncio.start_unix_server(self._connection, path=str(self._listen))
        else:
            self._server = await asyncio.start_server(self._connection, "127.0.0.1", self._listen)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        opened, pumps = [writer], list[asyncio.Future[None]]()
        try:
            there_reader, there_writer = await self._open()
            opened.append(there_writer)
            pumps.append(asyncio.ensure_future(self._pump(reader, there_writer, self._rewrite)))
            pumps.append(asyncio.ensure_future(self._pump(there_reader, writer, None)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            return  # nobody is there: the caller is told by the closed connection
        finally:
            for pump in pumps:
                pump.cancel()
            for one in opened:
                one.transport.abort()
            self._connections.discard(connection)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rewrite: Rewrite | None) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                if rewrite is None:
                    data = await reader.read(1 << 16)
                else:
                    size = await reader.readexactly(4)
                    data = size + rewrite(await reader.readexactly(int.from_bytes(size)))
                if not data:
                    return
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
