"""What the last 15 minutes were like for each tenant: plain dictionaries, filled record by record.

Nothing here knows where records come from. A record counts in the slice of time it was written in, so a
view that is built again from the log shows the same figures, and a recount of the topics can be held
against it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.report.outcomes import OutcomeState

SLICE_S = 30
N_SLICES = 30
WINDOW_S = SLICE_S * N_SLICES
RECENT_SLICES = 4
"""Two minutes: the rate that says how long a backlog will last."""
TOP_TENANTS = 10
UNKNOWN = "_unknown"
"""The tenant of a record that could not be read as an event. No tenant's name begins with "_"."""
OTHER = "_other"
"""All tenants that are not among the top, together."""

_GROWTH = 1.1
"""Quantiles are told within 10 %: each bucket of freshness is so much wider than the one below."""
_LOWEST_S = 0.001


@dataclass(slots=True)
class Counts:
    """What happened to one tenant in a slice, or in all of them. Freshness is counted by bucket."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    freshness: Counter[int] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Count everything of `other` as well."""
        self.outcomes.update(other.outcomes)
        self.failures.update(other.failures)
        self.dead_letters.update(other.dead_letters)
        self.freshness.update(other.freshness)

    def remove(self, other: Counts) -> None:
        """Count nothing of `other` any more; what is left with nothing goes."""
        for mine, theirs in zip(self._parts(), other._parts(), strict=True):
            for name, n in theirs.items():
                mine[name] -= n
                if mine[name] <= 0:
                    del mine[name]

    def _parts(self) -> tuple[Counter[Any], ...]:
        return self.outcomes, self.failures, self.dead_letters, self.freshness

    @property
    def is_empty(self) -> bool:
        return not any(self._parts())

    @property
    def finished(self) -> int:
        """Events that came to an end; one that is tried again later has not."""
        return self.outcomes.total() - self.outcomes[OutcomeState.RETRYING.value]

    def freshness_s(self, quantile: float) -> float | None:
        """Seconds from first publish to searchable, at most 10 % too high; None where nothing was indexed."""
        total = self.freshness.total()
        if not total:
            return None
        seen, wanted = 0, math.ceil(quantile * total)
        for bucket in sorted(self.freshness):
            seen += self.freshness[bucket]
            if seen >= wanted:
                return float(_LOWEST_S * _GROWTH**bucket)
        raise AssertionError("not reached: the last bucket reaches every quantile")


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """One tenant's row. `backlog` is estimated from a sample; `backlog_s` None: nothing is being finished."""

    tenant_id: str
    counts: Counts
    recent_per_s: float
    backlog: float
    n_tenants: int = 1

    @property
    def per_s(self) -> float:
        """Finished events a second, over the whole window."""
        return self.counts.finished / WINDOW_S

    @property
    def backlog_s(self) -> float | None:
        """When the backlog will be done, at the rate of the last two minutes."""
        if self.backlog <= 0:
            return 0.0
        return self.backlog / self.recent_per_s if self.recent_per_s > 0 else None

    def as_json(self) -> dict[str, Any]:
        """The row of `/pulse`."""
        counts = self.counts
        quantiles = {f"p{round(q * 100)}": counts.freshness_s(q) for q in (0.5, 0.95, 0.99)}
        return {
            "tenant_id": self.tenant_id,
            "tenants": self.n_tenants,
            "outcomes": dict(sorted(counts.outcomes.items())),
            "failures": dict(sorted(counts.failures.items())),
            "dead_letters": dict(sorted(counts.dead_letters.items())),
            "events_per_s": round(self.per_s, 4),
            "recent_events_per_s": round(self.recent_per_s, 4),
            "freshness_s": {name: None if s is None else round(s, 4) for name, s in quantiles.items()},
            "backlog": round(self.backlog),
            "backlog_done_in_s": None if self.backlog_s is None else round(self.backlog_s, 1),
        }


class TenantView:
    """Counts by slice and tenant, and their sums, so that looking costs nothing per slice. One thread records,
    others may look."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970."""
        self._clock = clock
        self._lock = threading.Lock()
        self._slices: dict[int, dict[str, Counts]] = {}
        self._slice_sums: dict[int, Counts] = {}
        self._tenants: dict[str, Counts] = {}
        self._all = Counts()

    def record_outcome(
        self, at_ms: int, tenant_id: str | None, state: OutcomeState, reason: str | None, freshness_s: float | None
    ) -> None:
        """One record of `images.outcomes`, written at `at_ms`."""
        bucket = None if freshness_s is None else _bucket(freshness_s)
        with self._lock:
            for counts in self._counts(at_ms, tenant_id):
                counts.outcomes[state.value] += 1
                if state is OutcomeState.FAILED:
                    counts.failures[reason or UNKNOWN] += 1
                if bucket is not None:
                    counts.freshness[bucket] += 1

    def record_dead_letter(self, at_ms: int, tenant_id: str | None, reason: str) -> None:
        """One record of `images.dead`, written at `at_ms`."""
        with self._lock:
            for counts in self._counts(at_ms, tenant_id):
                counts.dead_letters[reason] += 1

    def figures(self, backlog: Mapping[str, float], *, top: int = TOP_TENANTS) -> list[TenantFigures]:
        """The `top` tenants by what they did and have waiting, then all others as one row, where there are any.

        `backlog` gives the events that wait, by tenant.
        """
        with self._lock:
            now_slice = self._forget()
            waiting = {name: n for name, n in backlog.items() if n > 0}
            weights = {name: waiting.get(name, 0.0) + _weight(counts) for name, counts in self._tenants.items()}
            names = {**waiting, **weights}
            first = sorted(names, key=lambda name: (-names[name], name))[:top]
            rows = [
                TenantFigures(name, _copy(self._tenants.get(name)), self._rate(name, now_slice), waiting.get(name, 0.0))
                for name in first
            ]
            if len(names) > len(first):
                rows.append(self._others(rows, now_slice, sum(waiting.values()), len(names) - len(first)))
            return rows

    def window(self) -> tuple[float, float]:
        """The first second that counts now, and the first that does not yet."""
        last = int(self._clock() // SLICE_S)
        return float((last - N_SLICES + 1) * SLICE_S), float((last + 1) * SLICE_S)

    def _counts(self, at_ms: int, tenant_id: str | None) -> Iterable[Counts]:
        """Where a record of `at_ms` counts; a clock that runs ahead counts now, what is too old nowhere."""
        now_slice = int(self._clock() // SLICE_S)
        number = min(at_ms // (SLICE_S * 1000), now_slice)
        if number <= now_slice - N_SLICES:
            return ()
        if number not in self._slices:
            self._forget()
            self._slices[number], self._slice_sums[number] = {}, Counts()
        name, in_slice = tenant_id or UNKNOWN, self._slices[number]
        return (
            in_slice.setdefault(name, Counts()),
            self._tenants.setdefault(name, Counts()),
            self._slice_sums[number],
            self._all,
        )

    def _forget(self) -> int:
        """Take what is too old out of every sum; returns the slice of now."""
        now_slice = int(self._clock() // SLICE_S)
        for number in [number for number in self._slices if number <= now_slice - N_SLICES]:
            for name, counts in self._slices.pop(number).items():
                total = self._tenants[name]
                total.remove(counts)
                if total.is_empty:
                    del self._tenants[name]
            self._all.remove(self._slice_sums.pop(number))
        return now_slice

    def _rate(self, name: str | None, now_slice: int) -> float:
        """Finished events a second in the recent slices; None is everybody."""
        finished = 0
        for number in range(now_slice - RECENT_SLICES + 1, now_slice + 1):
            found = self._slice_sums.get(number) if name is None else self._slices.get(number, {}).get(name)
            finished += 0 if found is None else found.finished
        return finished / ((RECENT_SLICES - 1) * SLICE_S + self._clock() % SLICE_S)

    def _others(self, rows: Iterable[TenantFigures], now_slice: int, backlog: float, n_tenants: int) -> TenantFigures:
        """Everything that is not in `rows`, in one."""
        counts, rate = _copy(self._all), self._rate(None, now_slice)
        for row in rows:
            counts.remove(row.counts)
            rate -= row.recent_per_s
            backlog -= row.backlog
        return TenantFigures(OTHER, counts, max(0.0, rate), max(0.0, backlog), n_tenants)


def _weight(counts: Counts) -> int:
    return counts.finished + counts.dead_letters.total()


def _copy(counts: Counts | None) -> Counts:
    """As it is now: what goes on counting is not shown half."""
    copied = Counts()
    if counts is not None:
        copied.add(counts)
    return copied


def _bucket(seconds: float) -> int:
    """The bucket whose upper bound is the next one not below `seconds`."""
    return max(0, math.ceil(math.log(max(seconds, _LOWEST_S) / _LOWEST_S, _GROWTH) - 1e-9))
