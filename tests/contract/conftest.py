"""Every index there is, one after the other: a test that takes `stand` or `index` runs on each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from embedder.index.qdrant_server import pair
from tests.contract.index_cases import STANDS, Index, Stand, standing
from tests.contract.migration_cases import OLD
from tests.watched_qdrant import STANDS as SERVERS
from tests.watched_qdrant import Rig, rig


@pytest.fixture(scope="module", params=STANDS)
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(request.param, tmp_path_factory.mktemp("index")) as found:
        yield found


@pytest.fixture
def index(stand: Stand) -> Index:
    return stand.index


@pytest.fixture
def tenant(stand: Stand) -> str:
    return stand.tenant()


@pytest.fixture(params=SERVERS)
def rigged(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A Qdrant server for one test alone, whose points are copied in several parts however few they are."""
    monkeypatch.setattr(pair, "MAX_BATCH", 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told once: the imitation is always exact
        with rig(request.param, OLD) as found:
            yield found
