"""No tenant starves another: whose record is next among those in hand, and who is above its share of live.

Two questions, because one answer is not enough (docs/kafka.md):

* :class:`FairQueue`: of what this worker holds, the next is taken by deficit round robin over tenants,
  live before bulk but never 8 times in a row while bulk waits.
* :class:`LiveShares`: a tenant whose backlog lies before everybody else's in every partition cannot be
  overtaken by any order of what is in hand. Above its share while live waits, for longer than a moment, its
  records are moved to bulk (shunted), so that the others' are reached.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

BULK_EVERY = 8
"""Of 8 taken while both wait, one at least is of bulk: the same share as when polling."""
CALM_AFTER_S = 2.0
"""A tenant returns to live when it has not reached its share for so long."""


class RoundRobin(Generic[Item]):
    """Deficit round robin (Shreedhar and Varghese 1995): flows take turns, each turn is worth one quantum.

    A flow whose head costs more than it has saved waits another turn; what an empty flow has saved is lost.
    """

    def __init__(self, *, quantum: int) -> None:
        self._quantum = quantum
        self._flows: dict[str, deque[tuple[int, Item]]] = {}
        self._turns: deque[str] = deque()
        self._saved: dict[str, int] = {}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def n_flows(self) -> int:
        """How many flows have something waiting."""
        return len(self._turns)

    def append(self, flow: str, cost: int, item: Item) -> None:
        waiting = self._flows.get(flow)
        if waiting is None:
            waiting = self._flows[flow] = deque()
            self._turns.append(flow)
            self._saved[flow] = 0
        waiting.append((cost, item))
        self._n += 1

    def popleft(self) -> Item:
        """The next item; IndexError where there is none."""
        while True:
            flow = self._turns[0]
            waiting = self._flows[flow]
            cost = waiting[0][0]
            if self._saved[flow] < cost:
                self._turns.rotate(-1)
                self._saved[self._turns[0]] += self._quantum if len(self._turns) > 1 else cost
                continue
            self._saved[flow] -= cost
            self._n -= 1
            item = waiting.popleft()[1]
            if not waiting:
                del self._flows[flow], self._saved[flow]
                self._turns.popleft()
                if self._turns:
                    self._saved[self._turns[0]] += self._quantum
            return item


class FairQueue(Generic[Item]):
    """A queue over tenants in two classes of service, in place of a deque. Not thread-safe."""

    def __init__(self, describe: Callable[[Item], tuple[bool, str, int]], *, quantum: int) -> None:
        """`describe` gives of an item: whether it is of bulk, its tenant, and its cost in units of `quantum`."""
        self._describe = describe
        self._live: RoundRobin[Item] = RoundRobin(quantum=quantum)
        self._bulk: RoundRobin[Item] = RoundRobin(quantum=quantum)
        self._since_bulk = 0

    def __len__(self) -> int:
        return len(self._live) + len(self._bulk)

    def append(self, item: Item) -> None:
        bulk, tenant_id, cost = self._describe(item)
        (self._bulk if bulk else self._live).append(tenant_id, cost, item)

    def extend(self, items: Iterable[Item]) -> None:
        for item in items:
            self.append(item)

    def popleft(self) -> Item:
        """The next item; IndexError where there is none."""
        if not self._live or (self._bulk and self._since_bulk >= self._live_in_a_row()):
            self._since_bulk = 0
            return self._bulk.popleft()
        self._since_bulk += 1
        return self._live.popleft()

    def _live_in_a_row(self) -> int:
        """How many of live may be taken before bulk has its turn.

        One less while a single tenant of live waits: bulk's turn then comes at its cost. Without that one in eight
        arrivals of a tenant that sends now and then found bulk's turn due, because of another one's flood.
        """
        return BULK_EVERY - 1 if self._live.n_flows > 1 else BULK_EVERY - 2


@dataclass(slots=True)
class _Above:
    """A tenant that has reached its share: since when, and when it was last seen there."""

    since: float
    last: float


class LiveShares:
    """Who may have more of live. Thread-safe; one call when an event is taken and one when it is done."""

    def __init__(self, *, share: float, after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`share` (0 to 1) of the worker's window is one tenant's; above it for `after_s`, it is shunted."""
        self._share = share
        self._after_s = after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._above: dict[str, _Above] = {}
        self._cap = 1
        """A tenant's share in events, as of the last that entered."""

    @property
    def shunting(self) -> bool:
        """Whether anybody is above its share for long enough."""
        now = self._clock()
        return any(now - one.since >= self._after_s for one in self._above.values())

    def enter(self, tenant_id: str, *, window: int, behind: bool) -> bool:
        """Whether one more live event of this tenant may be worked on here; counted if so.

        `window` is how many events this worker holds at most, `behind` whether live waits in the log:
        without that nobody is kept waiting, and nobody is above its share.
        """
        cap = max(1, int(window * self._share))
        with self._lock:
            self._cap = cap
            held = self._held.get(tenant_id, 0)
            if held >= cap and self._is_shunted(tenant_id, self._clock(), behind=behind):
                return False
            self._held[tenant_id] = held + 1
            return True

    def leave(self, tenant_id: str) -> None:
        """An event that had entered is done."""
        with self._lock:
            held = self._held.get(tenant_id, 0) - 1
            if held > 0:
                self._held[tenant_id] = held
            else:
                self._held.pop(tenant_id, None)

    def _is_shunted(self, tenant_id: str, now: float, *, behind: bool) -> bool:
        above = self._above.get(tenant_id)
        if above is None:
            if behind:
                self._above[tenant_id] = _Above(now, now)
            return False
        above.last = now
        return now - above.since >= self._after_s

    def tend(self) -> None:
        """Let those return to live who have not reached their share for a while; call it now and then.

        Who still holds its share is not calm, though it asks for nothing: its own events fill the window, and
        while they wait for a flush nothing can be taken.
        """
        with self._lock:
            now = self._clock()
            for tenant_id, one in self._above.items():
                if self._held.get(tenant_id, 0) >= self._cap:
                    one.last = now
            self._calm(now)

    def _calm(self, now: float) -> None:
        for tenant_id in [name for name, one in self._above.items() if now - one.last > CALM_AFTER_S]:
            del self._above[tenant_id]
