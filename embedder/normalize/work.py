"""One notification on its way through the normalizer: finished when everything made of it is acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from embedder.normalize.observe import Place
from streams.consume.source import Delivery
from streams.notifications.hint import Kind


class Pending:
    """A delivery with so many parts still open. Thread-safe."""

    def __init__(self, delivery: Delivery, *, n_parts: int, on_done: Callable[[], None]) -> None:
        """`on_done` is told when the last part is done, after the offset is finished. Without parts: at once."""
        self.delivery = delivery
        self._left = max(1, n_parts)
        self._lock = threading.Lock()
        self._on_done = on_done
        if n_parts == 0:
            self.part_done()

    def part_done(self) -> None:
        """One part is durable, or needs nothing."""
        with self._lock:
            self._left -= 1
            done = self._left == 0
        if done:
            self.delivery.finish()
            self._on_done()


@dataclass(slots=True, eq=False)
class Look:
    """One key to look at."""

    pending: Pending
    place: Place
    kind: Kind
    tries: int = 0
    began_at: float = field(default_factory=time.monotonic)

    @property
    def waited_s(self) -> float:
        """Since it came."""
        return time.monotonic() - self.began_at
