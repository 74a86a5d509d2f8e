"""The view per tenant: what counts when, who is on top, and how long a backlog lasts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.report.outcomes import OutcomeState
from streams.tenant_view import N_SLICES, OTHER, SLICE_S, UNKNOWN, WINDOW_S, Counts, TenantView, _bucket

NOW_S = 1_800_000_000.0
INDEXED, FAILED = OutcomeState.INDEXED, OutcomeState.FAILED


class ManualTime:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = NOW_S

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now() -> ManualTime:
    return ManualTime()


@pytest.fixture
def view(now: ManualTime) -> TenantView:
    return TenantView(clock=now)


def record(view: TenantView, at_s: float, tenant: str | None, n: int = 1, state: OutcomeState = INDEXED) -> None:
    for _ in range(n):
        view.record_outcome(int(at_s * 1000), tenant, state, None, None)


@given(st.lists(st.tuples(st.integers(-WINDOW_S - 90, 60), st.sampled_from("abc")), max_size=200))
def test_the_figures_are_a_recount_of_the_window(records: list[tuple[int, str]]) -> None:
    """Whatever comes in whatever order: everything within the window counts, and nothing else."""
    view = TenantView(clock=lambda: NOW_S)
    for offset_s, tenant in records:
        record(view, NOW_S + offset_s, tenant)
    begin, _ = view.window()
    expected = Counter(tenant for offset_s, tenant in records if NOW_S + offset_s >= begin)
    assert {row.tenant_id: row.counts.finished for row in view.figures({})} == dict(expected)


def test_a_record_leaves_with_its_slice(view: TenantView, now: ManualTime) -> None:
    """After 15 minutes nothing is left of it, and nothing of its tenant."""
    record(view, NOW_S, "acme")
    now.at += WINDOW_S - SLICE_S
    assert [row.tenant_id for row in view.figures({})] == ["acme"]
    now.at += SLICE_S
    assert view.figures({}) == []


def test_old_slices_are_forgotten_while_records_come(view: TenantView, now: ManualTime) -> None:
    """Memory is that of one window, also where nobody ever looks."""
    for _ in range(3 * N_SLICES):
        record(view, now.at, "acme")
        now.at += SLICE_S
    assert len(view._slices) <= N_SLICES


def test_the_top_have_rows_and_all_others_one(view: TenantView) -> None:
    """A thousand tenants are as many rows as eleven, and no event is missing from them."""
    for number in range(1000):
        record(view, NOW_S, f"t{number}", n=1 + (number < 10))
    rows = view.figures({}, top=10)
    assert [row.tenant_id for row in rows] == [*sorted(f"t{n}" for n in range(10)), OTHER]
    assert rows[-1].n_tenants == 990
    assert sum(row.counts.finished for row in rows) == 1010


def test_who_only_waits_is_on_top_too(view: TenantView) -> None:
    """A tenant whose events are not even begun is the one an operator looks for."""
    record(view, NOW_S, "busy", n=5)
    rows = view.figures({"flood": 10_000.0}, top=1)
    assert [(row.tenant_id, row.backlog) for row in rows] == [("flood", 10_000.0), (OTHER, 0.0)]


def test_a_backlog_ends_at_the_recent_rate_or_not_at_all(view: TenantView, now: ManualTime) -> None:
    """What was finished long ago says nothing about how quick it is now."""
    record(view, NOW_S - 600, "acme", n=5000)
    record(view, NOW_S, "acme", n=90)
    now.at = NOW_S - NOW_S % SLICE_S + SLICE_S - 1e-6
    (row,) = view.figures({"acme": 300.0})
    assert row.recent_per_s == pytest.approx(90 / (4 * SLICE_S), rel=0.02)
    assert row.backlog_s == pytest.approx(300 / row.recent_per_s)
    (stuck,) = TenantView(clock=now).figures({"acme": 300.0})
    assert stuck.backlog_s is None
    assert stuck.as_json()["backlog_done_in_s"] is None


def test_failures_and_dead_letters_are_counted_by_reason(view: TenantView) -> None:
    """Of whoever they are; a record nobody could read is nobody's."""
    view.record_outcome(int(NOW_S * 1000), "acme", FAILED, "image_missing", None)
    view.record_dead_letter(int(NOW_S * 1000), None, "event_invalid")
    rows = {row.tenant_id: row.as_json() for row in view.figures({})}
    assert rows["acme"]["failures"] == {"image_missing": 1}
    assert rows[UNKNOWN]["dead_letters"] == {"event_invalid": 1}


def test_quantiles_are_told_within_a_tenth() -> None:
    """From a millisecond to a day, never too low."""
    rng = random.Random(7)
    seconds = sorted(10 ** rng.uniform(-3, 5) for _ in range(2000))
    counts = Counts(freshness=Counter(map(_bucket, seconds)))
    for quantile in (0.01, 0.5, 0.95, 0.99, 1.0):
        told = counts.freshness_s(quantile)
        true = seconds[max(0, -(-int(quantile * 10_000) * len(seconds) // 10_000) - 1)]
        assert told is not None
        assert true * 0.999 <= told <= true * 1.101
    assert Counts().freshness_s(0.5) is None
