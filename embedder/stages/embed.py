"""From pixels to vectors, a few pictures at a time, on one thread: the process's main thread.

In any other thread torch allocates from an arena that malloc's tuning does not reach (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embedder.index.points import PutVector, Vector
from embedder.models.protocol import Engine
from embedder.models.vectors import check_vector, comparable
from embedder.stages.work import Work, WorkQueue
from streams.errors import EventError
from streams.event import now_us
from streams.report.outcomes import OutcomeState

MAX_AGE_S = 0.005
"""How long a batch that is not full waits for a picture that is being decoded right now."""


class Embed:
    """Batches by size or age; at once when nothing is being decoded."""

    stage = "embed"

    def __init__(
        self,
        *,
        queue: WorkQueue,
        engine: Engine,
        write: WorkQueue,
        max_batch: int,
        decoding: Callable[[], int],
        fail: Callable[[Work, Exception, str], None],
        on_batch: Callable[[int], None],
    ) -> None:
        """`max_batch` is one or two on a CPU: larger ones are slower there (measured, docs/performance.md)."""
        self._queue = queue
        self._engine = engine
        self._write = write
        self._max_batch = max_batch
        self._decoding = decoding
        self._fail = fail
        self._on_batch = on_batch

    def run(self) -> None:
        """Until the queue is closed."""
        while works := self._queue.take(self._max_batch):
            if len(works) < self._max_batch and self._decoding():
                works += self._queue.take(self._max_batch - len(works), timeout_s=MAX_AGE_S)
            self._on_batch(len(works))
            self._embed(works)

    def _embed(self, works: Sequence[Work]) -> None:
        try:
            vectors = self._engine.embed(np.stack([work.pixels for work in works if work.pixels is not None]))
        except Exception as exc:  # noqa: BLE001 - one picture must not take its batch along: verdict.py
            if len(works) == 1:
                self._fail(works[0], exc, self.stage)
                return
            for work in works:
                self._embed([work])
            return
        good = comparable(vectors)
        now = now_us()
        for work, vector, is_good in zip(works, vectors, good.tolist(), strict=True):
            if is_good:
                self._finish(work, vector, now)
            else:
                self._refuse(work, vector)
        self._write.put_many([work for work, is_good in zip(works, good.tolist(), strict=True) if is_good])

    def _refuse(self, work: Work, vector: Vector) -> None:
        try:
            check_vector(vector, self._engine.info.dim)
        except EventError as exc:
            self._fail(work, exc, self.stage)

    def _finish(self, work: Work, vector: Vector, now: int) -> None:
        event = work.known_event
        assert event.location is not None
        assert work.etag is not None
        work.pixels = None
        work.write = PutVector(
            image_id=event.image_id,
            version=event.version,
            vector=vector,
            location=event.location,
            etag=work.etag,
            sha256=work.sha256,
            indexed_at_us=now,
            created_at_us=round(event.time.timestamp() * 1e6),
            engine=self._engine.name,
            tags=event.tags,
            attributes=event.attributes,
            width_px=work.width_px,
            height_px=work.height_px,
            replaces_etag=work.replaces_etag,
        )
        work.becomes = OutcomeState.INDEXED
        work.mark(self.stage)
