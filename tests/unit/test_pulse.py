"""The pulse without services: what it tells when they are gone, and when its view is to be built anew."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from embedder.index.live_recall import KEPT, LiveRecall, recall_of
from embedder.index.points import State
from embedder.index.protocol import Hit, Hits, IndexStats
from embedder.index.query import Query
from lookalike.commands.pulse import Heartbeat, _until_asked
from lookalike.pulse import Pulse
from lookalike.signals import stop_on_signals
from streams.backlog import Backlog, _place
from streams.errors import DependencyError, QueryError
from streams.metrics import PulseMetrics
from streams.pulse import STALE_S, Positions
from streams.report.outcomes import OutcomeState
from streams.starts import Starts
from streams.tenant_view import TenantView

TOPIC = "images.outcomes"


class ManualIndex:
    """An index whose approximate answers lack what a test says."""

    def __init__(self) -> None:
        self.down = False
        self.misses = 0
        self.gone = False

    def stats(self) -> IndexStats:
        if self.down:
            raise DependencyError("index", "gone")
        return IndexStats("edge", "c", {State.INDEXED: 7, State.DELETED: 1, State.EMPTY: 0}, {}, 2)

    def sample(self) -> tuple[str, str] | None:
        return None if self.gone else ("acme", "cat")

    def search(self, _tenant_id: str, query: Query) -> Hits:
        best = [Hit(f"p{n}", 1 - n / 100) for n in range(30)]
        found = best if query.exact else best[self.misses :]
        return Hits(tuple(found[: query.limit]), query.exact)


class ManualLanes:
    """A broker whose lanes hold what a test says."""

    def __init__(self) -> None:
        self.down = False
        self.backlog = Backlog({("images.live", 0): 3, ("images.live", 1): 4}, {"images.live": 9.5}, {"acme": 7.0})
        self.end = 0

    def measure(self) -> Backlog:
        if self.down:
            raise DependencyError("broker", "away")
        return self.backlog

    def retention_s(self) -> dict[str, float]:
        return {"images.live": 604_800.0}

    def ends(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        return {(topics[0], 0): self.end}


class Rig:
    def __init__(self) -> None:
        self.index, self.lanes, self.registry = ManualIndex(), ManualLanes(), CollectorRegistry()
        self.now = 1000.0
        self.view = TenantView(clock=lambda: 1_800_000_000.0)
        self.positions = Positions({TOPIC: Starts({0: 0}, {0: 0})}, clock=lambda: self.now)
        self.failures: list[BaseException] = []
        self.pulse = Pulse(
            lanes=self.lanes,
            index=self.index,
            view=self.view,
            positions=self.positions,
            topics=(TOPIC,),
            metrics=lambda rows: PulseMetrics(self.registry, rows=rows),
            top_tenants=10,
            fail=self.failures.append,
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_look_tells_lag_age_retention_and_points(rig: Rig) -> None:
    """By partition, topic and state; everything answered, so it is ready."""
    rig.pulse.look()
    assert rig.value("lookalike_consumer_lag", topic="images.live", partition="1") == 4
    assert rig.value("lookalike_oldest_event_age_seconds", topic="images.live") == 9.5
    assert rig.value("lookalike_topic_retention_seconds", topic="images.live") == 604_800
    assert rig.value("lookalike_index_points", state="indexed") == 7
    assert rig.pulse.ready()[0]
    assert rig.pulse.page()["lag"] == {"images.live": 7}


def test_nothing_is_told_of_recall_before_the_first_sample(rig: Rig) -> None:
    """Not a number, because 0 would page somebody."""
    assert b"lookalike_recall_at_10 NaN" in generate_latest(rig.registry)


@pytest.mark.parametrize("which", ["broker", "index"])
def test_what_does_not_answer_is_told_and_the_other_still_looked_at(rig: Rig, which: str) -> None:
    """The last figures stay, the dependency is 0, readiness says what it said."""
    rig.pulse.look()
    rig.lanes.down, rig.index.down = which == "broker", which == "index"
    rig.pulse.look()
    assert rig.value("lookalike_dependency_up", dependency=which) == 0
    assert rig.value("lookalike_dependency_up", dependency="index" if which == "broker" else "broker") == 1
    assert rig.value("lookalike_consumer_lag", topic="images.live", partition="1") == 4
    well, told = rig.pulse.ready()
    assert not well
    assert told["dependencies"][which]["last_error"] in ("away", "gone")


def test_recall_is_the_mean_of_the_last_samples(rig: Rig) -> None:
    """Two of ten neighbours missed: 0.8; better answers afterwards push it up again."""
    rig.index.misses = 2
    rig.pulse.sample_recall()
    assert rig.value("lookalike_recall_at_10") == 0.8
    rig.index.misses = 0
    for _ in range(KEPT):
        rig.pulse.sample_recall()
    assert rig.value("lookalike_recall_at_10") == 1.0
    assert rig.value("lookalike_recall_samples_total") == KEPT + 1


def test_a_picture_that_goes_between_the_two_questions_is_no_sample(rig: Rig) -> None:
    """Nor is an empty index: there is nothing to tell."""
    recall = LiveRecall(rig.index)
    rig.index.gone = True
    assert recall.take() is None

    class Deleting(ManualIndex):
        def search(self, _tenant_id: str, query: Query) -> Hits:
            if query.exact:
                raise QueryError(404, "image_not_found", "gone")
            return super().search(_tenant_id, query)

    assert LiveRecall(Deleting()).take() is None
    assert recall.mean is None


def test_a_hit_that_scores_as_much_as_the_last_counts_as_it() -> None:
    """Ten equal pictures: whichever ten of them were given, none was missed."""
    best = Hits(tuple(Hit(f"a{n}", 0.5) for n in range(10)), exact=True)
    given = Hits(tuple(Hit(f"b{n}", 0.499_999) for n in range(10)), exact=False)
    assert recall_of(given, best) == 1.0
    assert recall_of(Hits((), exact=False), best) == 0.0


def test_a_view_that_is_stuck_ends_the_process(rig: Rig) -> None:
    """Behind and without a record for two minutes; behind alone, or quiet alone, is normal."""
    rig.lanes.end = 5
    rig.pulse.look()
    assert rig.failures == []
    rig.now += STALE_S + 1
    rig.pulse.look()
    assert len(rig.failures) == 1
    for offset in range(5):
        assert rig.positions.admit(TOPIC, 0, offset)
    rig.now += STALE_S + 1
    rig.pulse.look()
    assert len(rig.failures) == 1


def test_repeats_are_dropped_and_skipped_records_told() -> None:
    """After a rebalance some come again; none may be missing, or the view would lie for 15 minutes."""
    positions = Positions({TOPIC: Starts({0: 10}, {0: 12})})
    assert not positions.complete()
    assert positions.admit(TOPIC, 0, 10)
    assert not positions.admit(TOPIC, 0, 10)
    assert positions.repeated == 1
    with pytest.raises(LookupError, match="2 records before 13 never came"):
        positions.admit(TOPIC, 0, 13)
    assert positions.admit(TOPIC, 0, 11)
    assert positions.complete()
    assert positions.admit(TOPIC, 1, 0), "a partition that was added begins at 0"


def test_series_of_the_metrics_do_not_grow_with_tenants(rig: Rig) -> None:
    """A hundred or a thousand: the same names, the same number."""
    counts = []
    for n_tenants in (100, 1000):
        for number in range(n_tenants):
            rig.view.record_outcome(1_800_000_000_000, f"t{number}", OutcomeState.INDEXED, None, 0.1)
        lines = generate_latest(rig.registry).decode().splitlines()
        counts.append(len([line for line in lines if line.startswith("lookalike_tenant_")]))
    assert counts[0] == counts[1]
    assert counts[0] == 11 * (len(OutcomeState) + 1 + 1 + 1 + 3 + 1 + 1)


@pytest.mark.parametrize("waiting", [0, 1, 7, 8, 9, 1000])
def test_samples_are_spread_over_what_waits(waiting: int) -> None:
    """Each at another offset, the first at the committed one, none behind the end."""
    places = [place for turn in range(8) if (place := _place(50, 50 + waiting, turn)) is not None]
    assert len(set(places)) == len(places) == min(8, waiting)
    assert not places or (places[0] == 50 and max(places) < 50 + waiting)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_comes_before_the_loop_runs_is_not_forgotten(number: signal.Signals) -> None:
    """The address is told before: whoever reads it and asks at once killed the process, which then ended with -15."""
    told: list[bool] = []

    async def view(asked: asyncio.Event) -> None:
        await asyncio.wait_for(asked.wait(), 30)
        told.append(True)

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        asked: threading.Event = stop_on_signals()
        signal.raise_signal(number)
        asyncio.run(_until_asked(view, Heartbeat(), asked))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert told == [True]
