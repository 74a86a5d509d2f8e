"""From pixels to vectors, a few pictures at a time, on one thread: the process's main thread.

In any other thread torch allocates from an arena that malloc's tuning does not reach (docs/performance.md).
"""

from __future__ import annotations

import time
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
MAX_BATCH_S = 0.05
"""How long a batch should take at most: whoever comes next waits for it and cannot overtake it, so a batch of four
pictures at 50 ms each kept a tenant's only picture waiting for eight (docs/chaos.md, scenario 19). A network that
gains from large batches does one in less: 64 pictures take a GPU some 25 ms."""
_PACE_WEIGHT = 0.25
"""Of the newest batch in the moving average of a picture's time."""


class Embed:
    """Batches by size, time or age; at once when nothing is being decoded."""

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A batch is of at most `max_batch` pictures, and of no more than take :data:`MAX_BATCH_S`.

        On a CPU `max_batch` is one or two: larger ones are slower there (measured, docs/performance.md).
        """
        self._queue = queue
        self._engine = engine
        self._write = write
        self._max_batch = max_batch
        self._decoding = decoding
        self._fail = fail
        self._on_batch = on_batch
        self._clock = clock
        self._picture_s = 0.0
        """What a picture takes, over the last few batches; 0 while unknown."""

    def run(self) -> None:
        """Until the queue is closed."""
        while works := self._queue.take(size := self._batch_size()):
            if len(works) < size and self._decoding():
                works += self._queue.take(size - len(works), timeout_s=MAX_AGE_S)
            self._on_batch(len(works))
            started = self._clock()
            self._embed(works)
            self._pace((self._clock() - started) / len(works))

    def _batch_size(self) -> int:
        """As many pictures as a batch of :data:`MAX_BATCH_S` has room for; one at least."""
        if self._picture_s * self._max_batch <= MAX_BATCH_S:
            return self._max_batch
        return max(1, int(MAX_BATCH_S / self._picture_s))

    def _pace(self, picture_s: float) -> None:
        known = self._picture_s or picture_s
        self._picture_s = known + _PACE_WEIGHT * (picture_s - known)

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
