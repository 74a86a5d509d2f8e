"""Names and choice of a collection's generations on a server."""

from __future__ import annotations

import pytest
from qdrant_client import QdrantClient

from embedder.index.qdrant_server.generations import Aliases, Generation, following, found, in_use, number_of
from embedder.index.qdrant_server.schema import COPY, SCHEMA_KEY


@pytest.fixture
def client() -> QdrantClient:
    return QdrantClient(":memory:")


def made(client: QdrantClient, name: str, **metadata: object) -> Generation:
    """A collection that says this of itself."""
    client.create_collection(name, vectors_config={}, metadata=metadata)
    return Generation(name, client.get_collection(name))


@pytest.mark.parametrize(("name", "number"), [("m--p", 1), ("m--p~2", 2), ("m--p~10", 10), ("m--p~x", 0), ("m--p~", 0)])
def test_a_name_has_its_number(name: str, number: int) -> None:
    """What follows the separator and is no number is a name that was not given here."""
    assert number_of(name) == number


def test_what_the_alias_means_is_in_use_else_the_newest_that_was(client: QdrantClient) -> None:
    """A copy is in use from the step on that moves the alias to it, and never before."""
    old, new, copy = made(client, "m--p"), made(client, "m--p~2"), made(client, "m--p~3", **{COPY: "ours"})
    assert in_use([old, new, copy], Aliases("ours", {"ours": "m--p"})) is old
    assert in_use([old, new, copy], Aliases("ours", {"ours": "m--p~3"})) is copy
    assert in_use([old, new, copy], Aliases("ours", {"ours": "another"})) is new
    assert in_use([old, new, copy], Aliases("ours", {})) is new
    assert in_use([copy], Aliases("ours", {})) is None


def test_a_copy_that_another_deployment_has_put_in_use_is_in_use_for_us(client: QdrantClient) -> None:
    """Killed before it could say so; an alias that somebody gave it before it was complete puts nothing in use."""
    old, copy = made(client, "m--p"), made(client, "m--p~2", **{COPY: "theirs"})
    assert in_use([old, copy], Aliases("ours", {"ours": "another", "theirs": "m--p~2"})) is copy
    assert in_use([old, copy], Aliases("ours", {"ours": "another", "curious": "m--p~2"})) is old


def test_what_others_keep_on_the_server_is_no_generation(client: QdrantClient) -> None:
    """Neither under a name like ours without our metadata nor under one of another shape; its number is not taken."""
    ours = {SCHEMA_KEY: 1}
    made(client, "m--p~10", **ours)
    made(client, "m--p~9", **ours)
    made(client, "m--p", **ours)
    made(client, "m--p~11")
    made(client, "m--p~old", **ours)
    made(client, "m--p2", **ours)
    assert [one.name for one in found(client, "m--p")] == ["m--p", "m--p~9", "m--p~10"]
    assert [one.name for one in found(client)] == ["m--p", "m--p~9", "m--p~10", "m--p2"]
    assert following(client, "m--p") == "m--p~12"


def test_the_server_allows_the_names(client: QdrantClient) -> None:
    """The imitation refuses what the server refuses (lib/common/common/src/validation.rs)."""
    client.create_collection(following(client, "efficientnet_lite0.57934424--full-v2"), vectors_config={})
    with pytest.raises(ValueError, match="char"):
        client.create_collection("m--p:2", vectors_config={})
