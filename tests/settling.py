"""Waiting until an Edge index has no maintenance under way."""

from __future__ import annotations

from collections.abc import Callable

from embedder.index.apart.engine import EngineApart
from tests.waiting import wait_until


def settle(index: EngineApart, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Maintain until it is done, calling `meanwhile` between the steps."""
    assert index.busy(), "nothing is under way"

    def step() -> bool:
        meanwhile()
        index.maintain(idle_s=0.0)
        return not index.busy()

    wait_until(step, timeout_s=240.0)
