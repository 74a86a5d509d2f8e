"""Waiting until published events have their outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

from streams.report.outcomes import Outcome, OutcomeState, decode
from streams.tail import Tail, extent

PATIENCE_S = 300.0
"""Without any outcome for so long, something is down that will not come back by itself."""


class OutcomeFollower:
    """Follows `images.outcomes` from where it ended when this was built: build it before the first send."""

    def __init__(self, client: Mapping[str, Any], topic: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises DependencyError (no broker) and ConfigError (no such topic)."""
        self._tail = Tail(client, topic, start=extent(client, topic).next_offset)
        self._clock = clock

    def wait(
        self,
        event_ids: Collection[str],
        *,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        patience_s: float = PATIENCE_S,
    ) -> dict[str, Outcome]:
        """The outcomes of these events; some are missing where none came for `patience_s`.

        An event that was delivered twice has two outcomes: the first counts. `retrying` is not an event's
        last word: it is given only where nothing better came in time.
        """
        missing, found, retrying = set(event_ids), dict[str, Outcome](), dict[str, Outcome]()
        moved_at = self._clock()
        while missing and self._clock() - moved_at < patience_s:
            for record in self._tail.poll(wait_s=0.5):
                outcome = _outcome(record.value)
                if outcome is None or outcome.event_id not in missing:
                    continue
                if outcome.state is OutcomeState.RETRYING:
                    retrying[outcome.event_id] = outcome
                    moved_at = self._clock()
                else:
                    missing.discard(outcome.event_id)
                    found[outcome.event_id] = outcome
                    moved_at = self._clock()
                    on_outcome(outcome)
        return found | {event_id: retrying[event_id] for event_id in missing & retrying.keys()}

    def close(self) -> None:
        self._tail.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _outcome(value: bytes | None) -> Outcome | None:
    """None for a record that is none: somebody else's, or of a later version."""
    try:
        return None if value is None else decode(value)
    except ValueError:
        return None
