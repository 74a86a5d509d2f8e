"""A migration on a Qdrant server that others use as well: nothing that any alias means is ever deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from qdrant_client import models

from embedder.index.qdrant_server.schema import COPY, is_fenced, make
from streams.errors import ConfigError
from tests.contract.migration_cases import KilledError, Steps, everything, filled, new, run
from tests.watched_qdrant import Rig


@contextlib.contextmanager
def alias(rigged: Rig, collection: str) -> Iterator[str]:
    """Another one, of another deployment or somebody's own."""
    name = f"theirs-{rigged.spec.model_id}"
    made = models.CreateAlias(collection_name=collection, alias_name=name)
    rigged.client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    try:
        yield name
    finally:
        gone = models.DeleteAlias(alias_name=name)
        rigged.client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=gone)])


def test_a_collection_that_another_alias_means_is_not_migrated(rigged: Rig) -> None:
    """Its deployment has other fields, or none; the line names the alias, and nothing was begun."""
    before = everything(filled(rigged))
    steps = Steps()
    with alias(rigged, rigged.spec.name) as theirs, pytest.raises(ConfigError, match=theirs):
        run(rigged.server(steps))
    assert steps.seen == []
    assert everything(rigged.server().current()) == before
    assert run(rigged.server()).collection == f"{rigged.spec.name}~2"


def test_an_alias_that_comes_during_the_copy_stops_the_migration(rigged: Rig) -> None:
    """A second deployment was started: its workers write to the old collection."""
    filled(rigged)
    with contextlib.ExitStack() as left:

        def comes(step: str) -> None:
            if step == "update_collection":
                left.enter_context(alias(rigged, rigged.spec.name))

        with pytest.raises(ConfigError, match="other aliases"):
            run(rigged.server(Steps(act=comes)))
        assert rigged.names() == [rigged.spec.name]
        assert not is_fenced(rigged.client.get_collection(rigged.spec.name))


def test_an_older_generation_that_an_alias_means_stays(rigged: Rig) -> None:
    """Neither a worker's start nor a switch nor the next migration removes it, nor can it be dropped."""
    filled(rigged)
    with pytest.raises(KilledError):
        run(rigged.server(Steps(kill_before="delete_collection")))
    with alias(rigged, rigged.spec.name) as theirs:
        rigged.server().ensure(new(rigged))
        rigged.server().switch(f"{rigged.spec.name}~2")
        assert run(rigged.server()).collection == f"{rigged.spec.name}~3"
        assert rigged.names() == [rigged.spec.name, f"{rigged.spec.name}~3"]
        with pytest.raises(ConfigError, match=theirs):
            rigged.server().drop(rigged.spec.name)
    rigged.server().ensure(new(rigged))
    assert rigged.names() == [f"{rigged.spec.name}~3"]


def test_the_copy_of_another_deployments_migration_stays(rigged: Rig) -> None:
    """Of this collection, whose number is lower than ours in the end, and of another one."""
    filled(rigged)
    make(rigged.client, rigged.spec, f"{rigged.spec.name}~2", copied_for="theirs")
    other = replace(rigged.spec, preprocessing_id="migrated-v2")
    make(rigged.client, other, other.name, copied_for="theirs")
    try:
        assert run(rigged.server()).collection == f"{rigged.spec.name}~3"
        rigged.server().ensure(new(rigged))
        assert rigged.names() == [f"{rigged.spec.name}~2", f"{rigged.spec.name}~3"]
        assert rigged.client.collection_exists(other.name)
    finally:
        rigged.client.delete_collection(other.name)


def test_an_alias_on_a_copy_that_was_cut_short_keeps_it(rigged: Rig) -> None:
    """Somebody looks at it; it does not come into use by that."""
    filled(rigged)
    with pytest.raises(KilledError):
        run(rigged.server(Steps(kill_before="update_collection")))
    copy = f"{rigged.spec.name}~2"
    assert (rigged.client.get_collection(copy).config.metadata or {})[COPY] == rigged.server().alias
    with alias(rigged, copy):
        assert rigged.server().ensure(rigged.spec).name == rigged.spec.name
        assert run(rigged.server()).collection == f"{rigged.spec.name}~3"
        assert copy in rigged.names()
