"""How worker and API come to a collection on a server, and follow the alias."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embedder.index.points import State
from embedder.index.protocol import CollectionSpec
from embedder.index.qdrant_server.client import ALIAS_AGE_S, ServerClient
from embedder.index.qdrant_server.connect import Server
from embedder.index.qdrant_server.index import ServerIndex
from streams.errors import ConfigError, DependencyError
from tests.contract.index_cases import SPEC, local_server, put, write


class MemoryServer(Server):
    """Collections of the client's own imitation behind an alias; `down` answers nothing."""

    def __init__(self) -> None:
        self.made: dict[str, ServerIndex] = {}
        self.alias_means: str | None = None
        self.down = False

    def ensure(self, spec: CollectionSpec) -> ServerIndex:
        if self.down:
            raise DependencyError("index", "down")
        if spec.name not in self.made:
            index = local_server()
            index._spec = spec
            index.name = SPEC.name
            self.made[spec.name] = index
        self.alias_means = self.alias_means or spec.name
        return self.made[spec.name]

    def current(self, known: ServerIndex | None = None) -> ServerIndex:
        if self.down or self.alias_means is None:
            raise DependencyError("index", "nothing there")
        return self.made[self.alias_means]


def test_a_worker_makes_its_collection_and_the_api_follows_the_alias() -> None:
    """The API has nothing before a worker was there, then what the alias means, within a second of a switch."""
    server, now = MemoryServer(), [0.0]
    api = ServerClient(server, clock=lambda: now[0])
    with pytest.raises(DependencyError):
        api.spec()
    other = replace(SPEC, preprocessing_id="test-v2")
    write(ServerClient(server, spec=SPEC), "acme", put("a"))
    write(ServerClient(server, spec=other), "acme", put("a"), put("b"))
    assert api.count("acme")[State.INDEXED] == 1
    server.alias_means = other.name
    now[0] += ALIAS_AGE_S
    assert api.count("acme")[State.INDEXED] == 2
    assert api.spec() == other


def test_a_server_that_was_down_is_found_again() -> None:
    """Nothing is connected at the start; every call fails with the same error until it answers."""
    server = MemoryServer()
    server.down = True
    worker = ServerClient(server, spec=SPEC)
    for call in (worker.ping, lambda: worker.read("acme", ["a"]), lambda: worker.write("acme", [put("a")])):
        with pytest.raises(DependencyError):
            call()
    server.down = False
    worker.ping()
    assert worker.read("acme", ["a"]) == [None]


@pytest.mark.parametrize("url", ["qdrant:6333", "127.0.0.1", "ftp://x", ""])
def test_what_is_no_url_is_one_line(url: str) -> None:
    """A wrong address stops the start with the variable's name."""
    with pytest.raises(ConfigError, match="LOOKALIKE_QDRANT_URL"):
        Server(url, alias="lookalike")


def test_a_server_is_addressed_without_being_there() -> None:
    """The constructor connects nothing, and the first call tells that nobody answers."""
    server = Server("http://127.0.0.1:9", alias="lookalike", grpc_port=9, timeout_s=1.0)
    with pytest.raises(DependencyError):
        ServerClient(server, spec=SPEC).ping()
