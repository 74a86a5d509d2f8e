"""A fence that a killed migration has left on a Qdrant server: who takes it down, and when."""

from __future__ import annotations

import pytest
from qdrant_client import models

from embedder.index.points import Written
from embedder.index.qdrant_server.client import FENCED_S, ServerClient
from embedder.index.qdrant_server.schema import is_fenced
from streams.errors import ConfigError, DependencyError
from tests.contract.index_cases import put, write
from tests.contract.migration_cases import KilledError, Steps, filled, run
from tests.watched_qdrant import Rig


def killed_behind_it(rigged: Rig) -> None:
    with pytest.raises(KilledError):
        run(rigged.server(Steps(kill_before="update_collection_aliases")))
    assert is_fenced(rigged.client.get_collection(rigged.spec.name))


def test_a_worker_that_runs_takes_it_down_after_a_while(rigged: Rig) -> None:
    """Nobody has to start one; while a migration may be at work it waits."""
    now = [0.0]
    worker = ServerClient(rigged.server(), spec=rigged.spec, clock=lambda: now[0])
    assert write(worker, "acme", put("i0")) == [Written.APPLIED]
    filled(rigged)
    killed_behind_it(rigged)
    for now[0] in (100.0, 200.0, 100.0 + FENCED_S - 1):
        assert worker.read("acme", ["i0"])[0] is not None
        with pytest.raises(DependencyError):
            write(worker, "acme", put("late"))
    now[0] = 100.0 + FENCED_S
    assert write(worker, "acme", put("late")) == [Written.APPLIED]
    now[0] += 10 * FENCED_S
    killed_behind_it(rigged)
    for _ in range(2):  # what failed long ago does not count
        with pytest.raises(DependencyError):
            write(worker, "acme", put("later"))


def test_a_worker_that_runs_with_the_old_fields_waits_and_says_so(rigged: Rig) -> None:
    """Its events are no dead letters: they were not wrong."""
    now = [0.0]
    worker = ServerClient(rigged.server(), spec=rigged.spec, clock=lambda: now[0])
    worker.ping()
    filled(rigged)
    run(rigged.server())
    with pytest.raises((DependencyError, ValueError)):  # the imitation's word for a missing one is ValueError
        write(worker, "acme", put("late"))
    worker._heard(DependencyError("index", "as a real server says it"))
    now[0] = FENCED_S
    with pytest.raises(DependencyError, match="start this worker again"):
        worker.read("acme", ["i0"])


def test_a_migration_that_is_refused_takes_it_down(rigged: Rig) -> None:
    """The next one may not get as far as the end, for whichever reason."""
    index = filled(rigged)
    killed_behind_it(rigged)
    made = models.CreateAlias(collection_name=rigged.spec.name, alias_name=f"theirs-{rigged.spec.model_id}")
    rigged.client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    with pytest.raises(ConfigError, match="other aliases"):
        run(rigged.server())
    assert write(index, "acme", put("late")) == [Written.APPLIED]


def test_it_goes_as_a_whole_from_a_collection_of_an_earlier_version(rigged: Rig) -> None:
    """Its strict mode is renewed at a worker's start, which names the batches but not the payloads."""
    filled(rigged)
    rigged.client.update_collection(
        rigged.spec.name, strict_mode_config=models.StrictModeConfig(enabled=True, max_query_limit=1000)
    )
    killed_behind_it(rigged)
    worker = rigged.server().ensure(rigged.spec)
    assert write(worker, "acme", put("late"), put("i0", version=9)) == [Written.APPLIED] * 2
    strict = rigged.client.get_collection(rigged.spec.name).config.strict_mode_config
    assert strict is not None
    assert strict.max_query_limit != 1000
    assert strict.max_collection_payload_size_bytes != 0
