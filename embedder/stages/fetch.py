"""From a location to the network's input: read the object, decode it in a child that may be killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from embedder.index.points import Step
from embedder.models.protocol import Pixels
from embedder.objects.protocol import Object, ObjectStore
from embedder.stages.outages import Outages, StoppedError
from embedder.stages.work import Work, WorkQueue
from streams.report.outcomes import OutcomeState

TAKE_SHARE = 512
"""Of what may wait for the network, the part one thread takes at once: one, unless batches are very large."""


class Decoded(Protocol):
    """A picture as the network wants it, with its size before the resize."""

    @property
    def pixels(self) -> Pixels: ...
    @property
    def width_px(self) -> int: ...
    @property
    def height_px(self) -> int: ...


class Decoder(Protocol):
    """Blocks; thread-safe. Raises EventError with an `image_*` reason, RetryableError for a lost child."""

    def decode(self, data: bytes) -> Decoded: ...


class Fetch:
    """Several threads run this; each holds at most one picture's bytes."""

    stage = "fetch"

    def __init__(
        self,
        *,
        queue: WorkQueue,
        objects: ObjectStore,
        decoder: Decoder,
        outages: Outages,
        embed: WorkQueue,
        max_bytes: int,
        max_waiting: int,
        report: Callable[[Work, OutcomeState], None],
        fail: Callable[[Work, Exception, str], None],
    ) -> None:
        """`max_waiting` decoded pictures may wait for the network: that bounds their memory."""
        self._queue = queue
        self._max_waiting = max_waiting
        self._objects = objects
        self._decoder = decoder
        self._outages = outages
        self._embed = embed
        self._max_bytes = max_bytes
        self._report = report
        self._fail = fail
        self.decoding = 0
        """About how many pictures are being fetched or decoded now: the batcher waits only for those."""

    def run(self) -> None:
        """Until the queue is closed."""
        while works := self._take():
            self.decoding += len(works)
            for work in works:
                try:
                    self._bring(work)
                finally:
                    self.decoding -= 1

    def _bring(self, work: Work) -> None:
        stage = self.stage
        try:
            found = self._fetch(work)
            if found is not None:
                work.mark(self.stage)
                stage = "decode"
                self._decode(work, found)
        except StoppedError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever one picture does must not end this thread: verdict.py
            self._fail(work, exc, stage)

    def _take(self) -> list[Work]:
        """The next in turn, once the network has not too much before it already."""
        self._embed.wait_below(self._max_waiting)
        return self._queue.take(max(1, self._max_waiting // TAKE_SHARE))

    def _fetch(self, work: Work) -> Object | None:
        """The object, or None where a HEAD shows that it is the one that is stored."""
        location = work.known_event.location
        assert location is not None
        if work.step is Step.RECHECK and work.stored is not None:
            info = self._outages.call(lambda: self._objects.head(location))
            there = work.stored.location
            same_place = there is not None and (there.bucket, there.key) == (location.bucket, location.key)
            if info.etag == work.stored.etag and same_place:
                work.mark(self.stage)
                self._report(work, OutcomeState.UNCHANGED)
                return None
            work.replaces_etag = work.stored.etag
        return self._outages.call(lambda: self._objects.get(location, max_bytes=self._max_bytes))

    def _decode(self, work: Work, found: Object) -> None:
        decoded = self._decoder.decode(found.data)
        work.etag = found.info.etag
        work.sha256 = hashlib.sha256(found.data).hexdigest()
        work.pixels, work.width_px, work.height_px = decoded.pixels, decoded.width_px, decoded.height_px
        work.mark("decode")
        self._embed.put(work)
