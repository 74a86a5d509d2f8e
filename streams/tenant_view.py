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
    """Counts by slice and tenant. One thread records, others may look."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970."""
        self._clock = clock
        self._lock = threading.Lock()
        self._slices: dict[int, dict[str, Counts]] = {}

    def record_outcome(
        self, at_ms: int, tenant_id: str | None, state: OutcomeState, reason: str | None, freshness_s: float | None
    ) -> None:
        """One record of `images.outcomes`, written at `at_ms`."""
        with self._lock:
            counts = self._counts(at_ms, tenant_id)
            if counts is None:
                return
            counts.outcomes[state.value] += 1
            if state is OutcomeState.FAILED:
                counts.failures[reason or UNKNOWN] += 1
            if freshness_s is not None:
                counts.freshness[_bucket(freshness_s)] += 1

    def record_dead_letter(self, at_ms: int, tenant_id: str | None, reason: str) -> None:
        """One record of `images.dead`, written at `at_ms`."""
        with self._lock:
            counts = self._counts(at_ms, tenant_id)
            if counts is not None:
                counts.dead_letters[reason] += 1

    def figures(self, backlog: Mapping[str, float], *, top: int = TOP_TENANTS) -> list[TenantFigures]:
        """The `top` tenants by what they did and have waiting, then all others as one row, where there are any.

        `backlog` gives the events that wait, by tenant.
        """
        with self._lock:
            now_slice = self._forget()
            totals, recent = self._sum(self._slices), self._sum(range(now_slice - RECENT_SLICES + 1, now_slice + 1))
        recent_s = (RECENT_SLICES - 1) * SLICE_S + self._clock() % SLICE_S
        rates = {tenant_id: counts.finished / recent_s for tenant_id, counts in recent.items()}
        names = set(totals) | {name for name, n in backlog.items() if n > 0}
        rows = [
            TenantFigures(name, totals.get(name, Counts()), rates.get(name, 0.0), backlog.get(name, 0.0))
            for name in names
        ]
        rows.sort(key=lambda row: (-_weight(row), row.tenant_id))
        rest = rows[top:]
        return [*rows[:top], _together(rest)] if rest else rows

    def window(self) -> tuple[float, float]:
        """The first second that counts now, and the first that does not yet."""
        last = int(self._clock() // SLICE_S)
        return float((last - N_SLICES + 1) * SLICE_S), float((last + 1) * SLICE_S)

    def _counts(self, at_ms: int, tenant_id: str | None) -> Counts | None:
        """Where a record of `at_ms` counts; a clock that runs ahead counts now, what is too old not at all."""
        now_slice = int(self._clock() // SLICE_S)
        number = min(at_ms // (SLICE_S * 1000), now_slice)
        if number <= now_slice - N_SLICES:
            return None
        if number not in self._slices:
            self._forget()
        return self._slices.setdefault(number, {}).setdefault(tenant_id or UNKNOWN, Counts())

    def _forget(self) -> int:
        now_slice = int(self._clock() // SLICE_S)
        for number in [number for number in self._slices if number <= now_slice - N_SLICES]:
            del self._slices[number]
        return now_slice

    def _sum(self, numbers: Iterable[int]) -> dict[str, Counts]:
        found: dict[str, Counts] = {}
        for number in numbers:
            for tenant_id, counts in self._slices.get(number, {}).items():
                found.setdefault(tenant_id, Counts()).add(counts)
        return found


def _weight(row: TenantFigures) -> float:
    return row.counts.finished + row.counts.dead_letters.total() + row.backlog


def _together(rows: list[TenantFigures]) -> TenantFigures:
    counts = Counts()
    for row in rows:
        counts.add(row.counts)
    backlog, rate = sum(row.backlog for row in rows), sum(row.recent_per_s for row in rows)
    return TenantFigures(OTHER, counts, rate, backlog, len(rows))


def _bucket(seconds: float) -> int:
    """The bucket whose upper bound is the next one not below `seconds`."""
    return max(0, math.ceil(math.log(max(seconds, _LOWEST_S) / _LOWEST_S, _GROWTH) - 1e-9))
