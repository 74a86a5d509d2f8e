"""Every index there is, one after the other: a test that takes `stand` or `index` runs on each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.index_cases import STANDS, Index, Stand, standing


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
