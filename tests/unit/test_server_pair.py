"""How many points of a migration travel at once."""

from __future__ import annotations

import pytest

from embedder.index.qdrant_server.pair import MAX_PART_BYTES, part_of
from embedder.index.qdrant_server.schema import MAX_BATCH


@pytest.mark.parametrize("dim", [1, 64, 1280, 4096, 65_536, 2**24])
def test_a_part_is_bounded_by_points_and_by_bytes(dim: int) -> None:
    """Vectors of usual length travel as any other write does; of the longest there is always one."""
    part = part_of(dim)
    assert 1 <= part <= MAX_BATCH
    assert part == 1 or part * dim * 4 <= MAX_PART_BYTES
    assert dim > 4096 or part == MAX_BATCH
