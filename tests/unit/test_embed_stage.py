"""How many pictures a batch has: as many as there are, but none that keeps the next tenant waiting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from embedder.models.hash_engine import HashEngine
from embedder.models.protocol import Pixels
from embedder.stages.embed import MAX_BATCH_S, Embed
from embedder.stages.work import Work, WorkQueue
from streams.consume.offsets import PartitionOffsets
from streams.consume.source import Delivery
from streams.event import Location, created
from streams.topics import Lane

MAX_BATCH = 64


class PricedEngine(HashEngine):
    """Batches take what `price` says of their size, on a clock that nobody waits for."""

    def __init__(self, price: Callable[[int, int], float], *, queue: WorkQueue) -> None:
        """`price` gives the seconds of a batch from its number and its size."""
        super().__init__()
        self._price, self._queue = price, queue
        self.now_s = 0.0
        self.sizes: list[int] = []

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        self.now_s += self._price(len(self.sizes), len(pixels))
        self.sizes.append(len(pixels))
        if not len(self._queue):
            self._queue.close()
        return super().embed(pixels)


def _work(n: int) -> Work:
    owner = PartitionOffsets("images.live", 0)
    event = created("acme", f"i{n}", Location("pictures", f"acme/{n}.jpg", "etag"))
    work = Work(Delivery(Lane.LIVE, owner.topic, 0, n, b"", b"", [], 0, owner), event)
    work.pixels, work.etag = np.zeros((32, 32, 3), np.float16), "etag"
    return work


def _no_failure(work: Work, error: Exception, stage: str) -> None:
    raise AssertionError(f"{work.known_event.image_id} failed in {stage}") from error


def _sizes(price: Callable[[int, int], float], *, n: int = 400) -> list[int]:
    queue, written = WorkQueue(lambda _work: None), WorkQueue(lambda _work: None)
    queue.put_many(_work(at) for at in range(n))
    engine = PricedEngine(price, queue=queue)
    stage = Embed(
        queue=queue,
        engine=engine,
        write=written,
        max_batch=MAX_BATCH,
        decoding=lambda: 0,
        fail=_no_failure,
        on_batch=lambda _n: None,
        clock=lambda: engine.now_s,
    )
    stage.run()
    assert len(written) == sum(engine.sizes) == n
    return engine.sizes


@pytest.mark.parametrize("picture_s", [0.0, MAX_BATCH_S / (2 * MAX_BATCH)])
def test_quick_network_gets_full_batches(picture_s: float) -> None:
    """What takes less than the limit together goes together."""
    assert _sizes(lambda _at, n: n * picture_s)[:-1] == [MAX_BATCH] * (400 // MAX_BATCH)


@pytest.mark.parametrize(("picture_s", "size"), [(0.2, 1), (MAX_BATCH_S * 0.99, 1), (MAX_BATCH_S / 4.5, 4)])
def test_batch_takes_no_longer_than_its_limit(picture_s: float, size: int) -> None:
    """Once the pace is known, a batch has the pictures that the limit has room for, and one at least."""
    sizes = _sizes(lambda _at, n: n * picture_s)
    assert sizes[0] == MAX_BATCH, "nothing is known of the first"
    assert set(sizes[1:-1]) == {size}


def test_network_that_gains_from_large_batches_grows_into_them() -> None:
    """After a slow start (a compilation), a call that costs the same however large it is ends with full batches."""
    sizes = _sizes(lambda at, n: 5.0 if at == 0 else 0.01 + n * 0.0001, n=4000)
    assert min(sizes[1:9]) < MAX_BATCH
    assert sizes[-10:-1] == [MAX_BATCH] * 9
