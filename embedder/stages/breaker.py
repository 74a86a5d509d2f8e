"""The breaker on dead letters: when everything fails, it is not the pictures.

A bad deploy must not drain the topics into `images.dead`. Counted are `internal_error`, and failures that
are spread over several tenants while more fails than succeeds; one tenant with only bad pictures never
trips it, because no tenant counts for more than a third of the limit.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import structlog

from embedder.stages.work import Work
from streams.errors import Reason

log = structlog.get_logger(__name__)

MIN_TENANTS = 3
SPAN_S = 60.0
PROBE_EVERY_S = 30.0
"""So often what is held is tried again: the first that succeeds closes the breaker."""


class DeadLetterBreaker:
    """Open, it holds what would be dead-lettered, uncommitted. Thread-safe."""

    def __init__(
        self,
        *,
        limit: int,
        probe_every_s: float = PROBE_EVERY_S,
        on_change: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit` failures within a minute open it; 0 switches it off. `on_change` is told open or closed."""
        self._limit = limit
        self._per_tenant = -(-limit // MIN_TENANTS)
        self._probe_every_s = probe_every_s
        self._on_change = on_change
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: deque[tuple[float, str, bool, int]] = deque()
        self._tenants: Counter[str] = Counter()
        self._internal = 0
        self._succeeded = 0
        self._held: list[Work] = []
        self._probe_at = 0.0
        self._open = False

    @property
    def open(self) -> bool:
        return self._open

    @property
    def held(self) -> int:
        """How many events would be dead letters."""
        return len(self._held)

    def may_bury(self, work: Work, tenant_id: str, reason: Reason) -> bool:
        """Whether this failure may become a dead letter; if not, it is held here."""
        if self._limit <= 0:
            return True
        opened = False
        with self._lock:
            if not self._open:
                self._count(tenant_id, reason)
                opened = self._open = self._tripped()
            if self._open:
                self._held.append(work)
                self._probe_at = self._probe_at if not opened else self._clock() + self._probe_every_s
        if opened:
            self._say()
        return not self._open

    def succeeded(self, *, on_trial: bool) -> None:
        """An event came to a good end; one that was tried again while the breaker was open closes it."""
        self._succeeded += 1  # a lost count under two threads does not matter: it is compared with hundreds
        if not (on_trial and self.open):
            return
        with self._lock:
            was_open, self._open = self._open, False
            self._failures.clear()
            self._tenants.clear()
            self._internal = 0
        if not was_open:  # another thread was quicker
            return
        self._on_change(False)
        log.warning("dead-letter breaker closed: an event that had failed succeeded")

    def due(self) -> list[Work]:
        """What was held and must be tried again now: everything once it is closed, else every half minute."""
        with self._lock:
            now = self._clock()
            if not self._held or (self._open and now < self._probe_at):
                return []
            self._probe_at = now + self._probe_every_s
            held, self._held = self._held, []
            return held

    def _count(self, tenant_id: str, reason: Reason) -> None:
        now = self._clock()
        internal = reason is Reason.INTERNAL_ERROR
        self._failures.append((now, tenant_id, internal, self._succeeded))
        self._tenants[tenant_id] += 1
        self._internal += internal
        while self._failures[0][0] < now - SPAN_S:
            _, tenant_id, internal, _ = self._failures.popleft()
            self._internal -= internal
            self._tenants[tenant_id] -= 1
            if not self._tenants[tenant_id]:
                del self._tenants[tenant_id]

    def _tripped(self) -> bool:
        if self._internal >= self._limit:
            return True
        if len(self._tenants) < MIN_TENANTS or len(self._failures) < self._limit:
            return False
        spread = sum(min(n, self._per_tenant) for n in self._tenants.values())
        return spread >= self._limit and spread > self._succeeded - self._failures[0][3]

    def _say(self) -> None:
        self._on_change(True)
        log.critical(
            "dead-letter breaker open: nothing is dead-lettered and no offset passes what failed; look at what fails, "
            "then mend and restart, or let it through with LOOKALIKE_WORKER_DEAD_LETTER_LIMIT=0",
            failures=len(self._failures),
            tenants=len(self._tenants),
            internal_errors=self._internal,
            within_s=SPAN_S,
        )
