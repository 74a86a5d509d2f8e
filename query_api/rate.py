"""How many requests a key may make: a bucket that fills steadily and is emptied by requests."""

from __future__ import annotations

from collections.abc import Callable


class RateLimit:
    """One bucket per key, used by one thread. A request may leave debts (a batch is as many as its searches)."""

    def __init__(self, *, per_s: float, clock: Callable[[], float]) -> None:
        """`per_s` requests a second on average, and as many as come in two seconds at once (at least 2)."""
        self._per_s = per_s
        self._burst = max(2.0, 2 * per_s)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, n: int = 1) -> float:
        """0 where the request may pass, which then costs `n`; else in how many seconds one may."""
        now = self._clock()
        left, at = self._buckets.get(key_id, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        passes = left >= 1
        self._buckets[key_id] = (left - n if passes else left, now)
        return 0.0 if passes else (1 - left) / self._per_s

    def charge(self, key_id: str, n: int) -> None:
        """`n` more for a request that has passed already."""
        left, at = self._buckets.get(key_id, (self._burst, self._clock()))
        self._buckets[key_id] = (left - n, at)
