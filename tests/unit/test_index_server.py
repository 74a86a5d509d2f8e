"""The index server's own promise: nothing is acknowledged that did not become durable."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import pytest

from embedder.index.collections import Collections
from embedder.index.exact import ExactIndex
from embedder.index.service.client import IndexClient
from embedder.index.service.server import IndexServer
from streams.errors import DependencyError
from tests.contract.index_cases import SPEC, put
from tests.waiting import wait_until


class Unflushable(ExactIndex):
    """An index on a disk that fails when it is asked to keep something."""

    def flush(self) -> None:
        raise DependencyError("index", "the disk is on fire")


def test_a_flush_that_fails_acknowledges_nothing_and_ends_the_server(tmp_path: Path) -> None:
    """Whoever waits for the flush is told, and the process ends: only a new start knows what is on the disk."""
    collections = Collections(tmp_path, lambda spec, _home: Unflushable(spec), engine="exact")
    socket_path = tmp_path / "index.sock"
    ended: list[BaseException] = []

    def serve() -> None:
        async def forever() -> None:
            await IndexServer(collections).serve(socket_path, asyncio.Event())

        try:
            asyncio.run(forever())
        except DependencyError as exc:
            ended.append(exc)

    thread = threading.Thread(target=serve)
    thread.start()
    wait_until(socket_path.exists)
    with closing(IndexClient(socket_path, spec=SPEC)) as client:
        with pytest.raises(DependencyError, match="on fire"):
            client.write("acme", [put("a")]).result(30)
        thread.join(30)
    assert not thread.is_alive()
    assert "on fire" in str(ended[0])
