"""Recall as it is now: a stored image asks for its neighbours, and the same question is answered exactly."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from embedder.index.protocol import Hits
from embedder.index.query import Query, like
from streams.errors import QueryError

AT = 10
KEPT = 30
"""Samples the gauge is the mean of: half an hour at one a minute."""
_TIE = 1e-5
"""Scores nearer than this are equal: float32 dot products in another order differ by less."""


class Sampled(Protocol):
    """What is asked; :class:`~embedder.index.service.client.IndexClient` has it."""

    def sample(self) -> tuple[str, str] | None: ...

    def search(self, tenant_id: str, query: Query) -> Hits: ...


@dataclass(frozen=True, slots=True)
class RecallSample:
    """One question asked twice; `recall` is 0 to 1."""

    tenant_id: str
    image_id: str
    recall: float
    was_exact: bool
    """The index compared everything also where it was not asked to: a small tenant."""


class LiveRecall:
    """Keeps the last KEPT samples. One thread uses it."""

    def __init__(self, index: Sampled) -> None:
        self._index = index
        self._samples: deque[RecallSample] = deque(maxlen=KEPT)

    def take(self) -> RecallSample | None:
        """Ask once; None where there is nothing to ask about, or it has just gone. DependencyError passes."""
        found = self._index.sample()
        if found is None:
            return None
        tenant_id, image_id = found
        question = like(image_id, limit=AT)
        try:
            given = self._index.search(tenant_id, question)
            best = self._index.search(tenant_id, replace(question, exact=True))
        except QueryError:  # deleted between the two
            return None
        if not best.hits:
            return None
        sample = RecallSample(tenant_id, image_id, recall_of(given, best), given.exact)
        self._samples.append(sample)
        return sample

    @property
    def mean(self) -> float | None:
        """Over what was sampled lately; None before the first."""
        return sum(one.recall for one in self._samples) / len(self._samples) if self._samples else None


def recall_of(given: Hits, best: Hits) -> float:
    """The share of the best hits that were given; one that scores as much as the last of them counts as it."""
    lowest = best.hits[-1].score - _TIE
    return min(1.0, sum(hit.score >= lowest for hit in given.hits) / len(best.hits))
