"""What `lookalike pulse` does besides the view: looks at lag, index and recall on a thread, and tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from embedder.index.live_recall import LiveRecall, Sampled
from embedder.index.protocol import IndexStats
from streams.backlog import Backlog
from streams.errors import ConfigError, DependencyError, LookalikeError
from streams.metrics import PulseMetrics
from streams.pulse import STALE_S, Positions
from streams.tenant_view import WINDOW_S, TenantFigures, TenantView
from streams.threads import name_this_thread

log = structlog.get_logger(__name__)


class Index(Sampled, Protocol):
    """What the pulse asks of the index."""

    def stats(self) -> IndexStats: ...


class Lanes(Protocol):
    """What the pulse asks of the broker; :class:`~streams.backlog.BacklogWatch` has it."""

    def measure(self) -> Backlog: ...

    def retention_s(self) -> dict[str, float]: ...

    def ends(self, topics: Sequence[str]) -> dict[tuple[str, int], int]: ...


class Pulse:
    """Everything the pulse knows. :meth:`run` belongs to one thread; :meth:`page` and the metrics to any."""

    def __init__(
        self,
        *,
        lanes: Lanes,
        index: Index,
        view: TenantView,
        positions: Positions,
        topics: Sequence[str],
        metrics: Callable[[Callable[[], Sequence[TenantFigures]]], PulseMetrics],
        top_tenants: int,
        fail: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`topics` are those the view reads; `fail` ends the process where the view is stuck."""
        self._lanes = lanes
        self._index = index
        self._view = view
        self._positions = positions
        self._topics = topics
        self._top = top_tenants
        self._fail = fail
        self._clock = clock
        self._recall = LiveRecall(index)
        self._backlog = Backlog({}, {}, {})
        self._errors: dict[str, str | None] = {}
        self._stats: IndexStats | None = None
        self._metrics = metrics(self.rows)

    def run(self, stop: threading.Event, *, every_s: float, recall_every_s: float) -> None:
        """Look at once, and then every `every_s` until `stop` is set."""
        name_this_thread("looks")
        recall_at = self._clock()
        while True:
            self.look()
            if self._clock() >= recall_at:
                self.sample_recall()
                recall_at = self._clock() + recall_every_s
            if stop.wait(every_s):
                return

    def look(self) -> None:
        """Ask broker and index once. What does not answer is told, and keeps its last figures."""
        self._ask("broker", self._look_at_lanes)
        self._ask("index", self._look_at_index)

    def sample_recall(self) -> None:
        """One sample; nothing where the index is empty."""
        self._ask("index", self._sample)

    def rows(self) -> list[TenantFigures]:
        """The tenants to show."""
        return self._view.figures(self._backlog.by_tenant, top=self._top)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether everything answered the last look, and the view covers its window."""
        dependencies = {
            name: {"state": "ok" if error is None else "failed", "last_error": error}
            for name, error in sorted(self._errors.items())
        }
        complete = self._positions.complete()
        asked = {"broker", "index"} <= set(self._errors)
        well = asked and complete and all(error is None for error in self._errors.values())
        return well, {"dependencies": dependencies, "view_complete": complete}

    def page(self) -> Mapping[str, Any]:
        """The object of `/pulse`."""
        backlog, (begin, end) = self._backlog, self._view.window()
        lag: dict[str, int] = {}
        for (topic, _), n in backlog.lag.items():
            lag[topic] = lag.get(topic, 0) + n
        return {
            "window_s": WINDOW_S,
            "window": {"from": begin, "to": end},
            "complete": self._positions.complete(),
            "read_to": self._positions.as_json(),
            "repeated": self._positions.repeated,
            "lag": lag,
            "oldest_age_s": dict(backlog.oldest_age_s),
            "index": None if self._stats is None else {str(state): n for state, n in self._stats.points.items()},
            "recall_at_10": self._recall.mean,
            "tenants": [row.as_json() for row in self.rows()],
        }

    def _ask(self, dependency: str, ask: Callable[[], None]) -> None:
        try:
            ask()
        except (DependencyError, ConfigError) as exc:
            if self._errors.get(dependency) is None:
                log.warning("dependency does not answer", dependency=dependency, error=str(exc))
            self._tell(dependency, exc)
        else:
            self._tell(dependency, None)

    def _tell(self, dependency: str, error: LookalikeError | None) -> None:
        self._errors[dependency] = None if error is None else str(error)
        self._metrics.answers.labels(dependency).set(error is None)

    def _look_at_lanes(self) -> None:
        backlog, retention_s = self._lanes.measure(), self._lanes.retention_s()
        for (topic, number), n in backlog.lag.items():
            self._metrics.lag.labels(topic, str(number)).set(n)
        for topic, age_s in backlog.oldest_age_s.items():
            self._metrics.oldest_age.labels(topic).set(age_s or 0.0)
        for topic, kept_s in retention_s.items():
            self._metrics.retention.labels(topic).set(kept_s)
        self._backlog = backlog
        self._look_at_view()

    def _look_at_view(self) -> None:
        behind = self._positions.behind(self._lanes.ends(self._topics))
        self._metrics.view_behind.set(behind)
        self._metrics.view_complete.set(self._positions.complete())
        if behind and self._positions.still_s() > STALE_S:
            self._fail(DependencyError("broker", f"the view has been {behind} records behind for {STALE_S:.0f} s"))

    def _look_at_index(self) -> None:
        stats = self._index.stats()
        for state, n in stats.points.items():
            self._metrics.index_points.labels(state.value).set(n)
        self._metrics.index_tenants.set(stats.tenants)
        self._stats = stats

    def _sample(self) -> None:
        sample = self._recall.take()
        mean = self._recall.mean
        if sample is None or mean is None:
            return
        self._metrics.recall_samples.inc()
        self._metrics.recall.set(mean)
        if sample.recall < 1.0:
            log.info("neighbours missed", tenant_id=sample.tenant_id, image_id=sample.image_id, recall=sample.recall)
