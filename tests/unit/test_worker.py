"""The whole worker on in-memory services: every way an event can end, and nothing finished before it is durable."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from embedder.index.points import AttemptState, Point, State, Write
from embedder.index.protocol import Receipt, Writer
from embedder.index.query import like
from embedder.models.hash_engine import HashEngine
from embedder.models.protocol import Pixels
from embedder.worker import WorkerOptions
from streams.errors import DependencyError, Reason, RetryableError
from streams.event import Location, created, deleted, encode, now_us
from streams.report.outcomes import OutcomeState
from tests.waiting import wait_until
from tests.worker_rig import BUCKET, Rig


def _dead_reasons(rig: Rig) -> list[str]:
    return [dict(record.headers)["lookalike.dead.reason"].decode() for record in rig.dead()]


def test_created_becomes_searchable_once_with_its_outcome() -> None:
    """A picture that is announced is indexed, reported with freshness and stage times, and committed."""
    rig = Rig()
    event = rig.publish(created("acme", "one", rig.put("acme", "one.jpg", b"one"), tags=("red",)))
    with rig.work() as running:
        running.settle(1)
    point = rig.exact.get("acme", "one")
    assert point is not None
    assert (point.state, point.version, point.tags) == (State.INDEXED, event.version, ("red",))
    (outcome,) = rig.outcomes()
    assert outcome.state is OutcomeState.INDEXED
    assert outcome.freshness_s is not None
    assert {"lookup", "fetch", "decode", "embed", "write"} <= set(outcome.stage_s)
    assert not rig.dead()


def test_delivered_again_it_costs_no_fetch() -> None:
    """A record that comes again after a crash is unchanged: no read of the object, no second point."""
    rig = Rig()
    rig.publish(created("acme", "one", rig.put("acme", "one.jpg", b"one")))
    with rig.work() as running:
        running.settle(1)
    rig.log.committed.clear()
    reads = rig.objects.reads
    with rig.work() as running:
        running.settle(2)
    assert [outcome.state for outcome in rig.outcomes()] == [OutcomeState.INDEXED, OutcomeState.UNCHANGED]
    assert rig.objects.reads == reads


def test_newer_version_of_the_same_object_refreshes_without_a_fetch() -> None:
    """A change of tags arrives as a newer created with the stored ETag and costs no fetch."""
    rig = Rig()
    location = rig.put("acme", "one.jpg", b"one")
    first = rig.publish(created("acme", "one", location, tags=("red",)))
    with rig.work() as running:
        running.settle(1)
        reads = rig.objects.reads
        rig.publish(created("acme", "one", location, version=first.version + 1, tags=("blue",)))
        running.settle(2)
    point = rig.exact.get("acme", "one")
    assert point is not None
    assert (point.version, point.tags) == (first.version + 1, ("blue",))
    assert rig.objects.reads == reads


def test_same_version_with_another_etag_is_checked_at_the_store() -> None:
    """The stored object is not fetched again for a stale ETag; a really different one is embedded."""
    rig = Rig()
    location = rig.put("acme", "one.jpg", b"one")
    first = rig.publish(created("acme", "one", location))
    stale = Location(BUCKET, "acme/one.jpg", "another-etag")
    with rig.work() as running:
        running.settle(1)
        rig.publish(created("acme", "one", stale, version=first.version))
        running.settle(2)
        now = rig.put("acme", "one.jpg", b"two")
        rig.publish(created("acme", "one", now, version=first.version))
        running.settle(3)
    assert [outcome.state.value for outcome in rig.outcomes()] == ["indexed", "unchanged", "indexed"]
    point = rig.exact.get("acme", "one")
    assert point is not None
    assert point.etag == now.etag


def test_what_is_there_is_embedded_under_its_own_etag() -> None:
    """An object that changed after its event is embedded as it is, and its own ETag is recorded."""
    rig = Rig()
    old = rig.put("acme", "one.jpg", b"old")
    rig.publish(created("acme", "one", old))
    new = rig.put("acme", "one.jpg", b"new")
    with rig.work() as running:
        running.settle(1)
    point = rig.exact.get("acme", "one")
    assert point is not None
    assert point.etag == new.etag != old.etag


def test_delete_removes_and_a_late_create_does_not_resurrect() -> None:
    """A tombstone keeps its version: the create that comes late is superseded."""
    rig = Rig()
    late = created("acme", "one", rig.put("acme", "one.jpg", b"one"))
    rig.publish(deleted("acme", "one", version=late.version + 1))
    with rig.work() as running:
        running.settle(1)
        rig.publish(late)
        running.settle(2)
    point = rig.exact.get("acme", "one")
    assert point is not None
    assert point.state is State.DELETED
    assert [outcome.state.value for outcome in rig.outcomes()] == ["deleted", "superseded"]


def test_bad_picture_is_dead_lettered_and_its_neighbours_are_indexed() -> None:
    """One bad picture among good ones: one dead letter with its reason, one failed attempt, the rest searchable."""
    rig = Rig()
    for n in range(10):
        data = b"bad" if n == 4 else b"good %d" % n
        rig.publish(created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", data)))
    with rig.work() as running:
        running.settle(10)
    assert rig.states() == {"indexed": 9, "failed": 1}
    assert _dead_reasons(rig) == ["image_unreadable"]
    point = rig.exact.get("acme", "i4")
    assert point is not None
    assert point.attempt is not None
    assert (point.state, point.attempt.state, point.attempt.reason) == (
        State.EMPTY,
        AttemptState.FAILED,
        Reason.IMAGE_UNREADABLE,
    )


def test_failed_newer_attempt_leaves_the_searchable_picture() -> None:
    """A picture leaves the search only by a delete or a newer picture, never by a failed attempt."""
    rig = Rig()
    first = rig.publish(created("acme", "one", rig.put("acme", "one.jpg", b"one")))
    with rig.work() as running:
        running.settle(1)
        rig.publish(created("acme", "one", rig.put("acme", "one.jpg", b"bad")))
        running.settle(2)
    point = rig.exact.get("acme", "one")
    assert point is not None
    assert (point.state, point.version) == (State.INDEXED, first.version)
    assert point.attempt is not None
    assert point.attempt.state is AttemptState.FAILED
    similar = rig.exact.search("acme", like(HashEngine().embed(rig.decoder.decode(b"one").pixels[None])[0], limit=1))
    assert [hit.image_id for hit in similar.hits] == ["one"]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        (Location(BUCKET, "other/one.jpg"), "location_forbidden"),
        (Location("elsewhere", "acme/one.jpg"), "location_forbidden"),
        (Location(BUCKET, "acme/../other/one.jpg"), "location_forbidden"),
        (Location(BUCKET, "acme/missing.jpg"), "attempts_exhausted"),
    ],
)
def test_place_that_gives_nothing_ends_as_a_typed_dead_letter(location: Location, reason: str) -> None:
    """Another tenant's prefix, another bucket, a path upwards, a missing object: each has its reason."""
    rig = Rig()
    rig.publish(created("acme", "one", location))
    rig.publish(created("acme", "two", rig.put("acme", "two.jpg", b"two")))
    with rig.work() as running:
        running.settle(2)
    assert _dead_reasons(rig) == [reason]
    assert rig.states() == {"indexed": 1, "failed": 1}


def test_record_that_is_no_event_is_dead_lettered_untouched() -> None:
    """Key, value and headers of what cannot be read lie in the dead letter as they came."""
    rig = Rig()
    rig.log.append("images.live", key=b"k", value=b"{not json", headers=[("ce_id", b"1"), ("x", b"y")])
    with rig.work() as running:
        running.settle(1)
    (record,) = rig.dead()
    assert (record.key, record.value) == (b"k", b"{not json")
    headers = dict(record.headers)
    assert (headers["ce_id"], headers["x"]) == (b"1", b"y")
    assert headers["lookalike.dead.offset"] == b"0"
    (outcome,) = rig.outcomes()
    assert (outcome.state, outcome.tenant_id) == (OutcomeState.FAILED, None)


def test_unknown_type_is_unsupported() -> None:
    """An event of a type this version does not know keeps its bytes for one that does."""
    rig = Rig()
    key, value, headers = encode(created("acme", "one", Location(BUCKET, "acme/one.jpg")))
    headers = [(name, b"lookalike.image.renamed.v9" if name == "ce_type" else text) for name, text in headers]
    rig.log.append("images.live", key=key, value=value, headers=headers)
    with rig.work() as running:
        running.settle(1)
    assert _dead_reasons(rig) == ["event_unsupported"]


def test_transient_failure_is_tried_again_in_place() -> None:
    """A short read or an object that comes late is no failure."""
    rig = Rig()
    location = rig.put("acme", "one.jpg", b"one")
    rig.objects.faults[BUCKET, "acme/one.jpg"] = deque([RetryableError(Reason.IMAGE_MISSING, "short read")] * 2)
    rig.publish(created("acme", "one", location))
    with rig.work() as running:
        running.settle(1)
    assert rig.states() == {"indexed": 1}
    assert not rig.dead()


def test_unexpected_error_ends_as_internal_error_with_its_traceback() -> None:
    """What nobody expected costs one event, and the dead letter says where it happened."""

    class Broken(HashEngine):
        def embed(self, pixels: Pixels):  # type: ignore[no-untyped-def]
            if (pixels[:, 0, 0, 0] == marked).any():
                raise ZeroDivisionError("a bug")
            return super().embed(pixels)

    rig = Rig(engine=Broken())
    marked = rig.decoder.decode(b"one").pixels[0, 0, 0]
    for name in ("one", "two"):
        rig.publish(created("acme", name, rig.put("acme", f"{name}.jpg", name.encode())))
    with rig.work() as running:
        running.settle(2)
    assert _dead_reasons(rig) == ["internal_error"]
    assert b"a bug" in dict(rig.dead()[0].headers)["lookalike.dead.message"]
    assert b"Traceback" in dict(rig.dead()[0].headers)["lookalike.dead.message"]
    assert rig.states() == {"indexed": 1, "failed": 1}


@dataclass
class FaultyIndex:
    """An index that is down while `down` is set; every other write fails after it was applied."""

    inner: Writer
    down: threading.Event = field(default_factory=threading.Event)
    lose_answers: bool = False
    writes: int = 0
    refused: int = 0

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        self._check()
        return self.inner.read(tenant_id, image_ids)

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        self._check()
        self.writes += 1
        done = self.inner.write(tenant_id, writes)
        if self.lose_answers and self.writes % 2:
            lost: Future[Receipt] = Future()
            lost.set_exception(DependencyError("index", "connection lost after the write"))
            return lost
        return done

    def _check(self) -> None:
        if self.down.is_set():
            self.refused += 1
            raise DependencyError("index", "connection refused")


def test_index_outage_pauses_and_dead_letters_nothing() -> None:
    """While the index is down nothing is given up and nothing is committed; afterwards all is indexed."""
    rig = Rig()
    index = FaultyIndex(rig.exact)
    index.down.set()
    rig.index = index
    for n in range(40):
        rig.publish(created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", b"%d" % n)))
    with rig.work() as running:
        wait_until(lambda: index.refused >= 3)
        assert rig.metrics.registry.get_sample_value("lookalike_paused", {"cause": "index"}) == 1
        assert not any(rig.log.committed.values())
        index.down.clear()
        running.settle(40)
        assert rig.metrics.registry.get_sample_value("lookalike_paused", {"cause": "index"}) == 0
    assert rig.states() == {"indexed": 40}
    assert not rig.dead()


def test_answers_lost_after_the_write_repeat_it_without_harm() -> None:
    """An index that dies between write and answer is asked again, and one point per image results."""
    rig = Rig()
    rig.index = FaultyIndex(rig.exact, lose_answers=True)
    for n in range(20):
        rig.publish(created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", b"%d" % n)))
    with rig.work() as running:
        running.settle(20)
    assert rig.states() == {"indexed": 20}
    assert rig.exact.count("acme")[State.INDEXED] == 20


def test_bucket_outage_pauses_and_resumes() -> None:
    """A bucket that does not answer holds the pictures; the very same reads go on when it is back."""
    rig = Rig()
    place = (BUCKET, "acme/one.jpg")
    rig.objects.faults[place] = deque([DependencyError("bucket", "no route")] * 3)
    rig.publish(created("acme", "one", rig.put("acme", "one.jpg", b"one")))
    with rig.work() as running:
        running.settle(1)
    assert rig.states() == {"indexed": 1}


def test_stopped_during_an_outage_it_ends_and_commits_nothing() -> None:
    """SIGTERM while the index is down does not hang; the events come again."""
    rig = Rig()
    index = FaultyIndex(rig.exact)
    index.down.set()
    rig.index = index
    rig.publish(created("acme", "one", rig.put("acme", "one.jpg", b"one")))
    with rig.work() as running:
        wait_until(lambda: index.refused >= 1)
    assert running.left == 1
    assert not any(rig.log.committed.values())
    rig.index = None
    with rig.work() as running:
        running.settle(1)
    assert rig.states() == {"indexed": 1}


def test_partition_lost_in_flight_is_not_committed_and_comes_again() -> None:
    """Work of a partition that went away is dropped or done twice, never committed by the old owner."""
    rig = Rig()
    gate = threading.Event()

    class Slow(HashEngine):
        def embed(self, pixels: Pixels):  # type: ignore[no-untyped-def]
            gate.wait(30)
            return super().embed(pixels)

    rig.engine = Slow()
    for n in range(12):
        rig.publish(created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", b"%d" % n)))
    with rig.work() as running:
        wait_until(lambda: running.worker._window.in_flight == 12)
        running.source.abandon()
        gate.set()
        wait_until(lambda: running.worker._window.in_flight == 0)  # or nothing would ever be admitted again
    assert not any(rig.log.committed.values())
    rig.engine = HashEngine()
    with rig.work() as second:
        wait_until(lambda: rig.log.committed == second.expected_commits())
    assert rig.exact.count("acme")[State.INDEXED] == 12


def test_stage_that_breaks_ends_the_worker_loudly() -> None:
    """A bug in a stage's own loop ends the process instead of leaving half a pipeline."""
    rig = Rig()

    class Broken:
        def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
            raise ZeroDivisionError("a bug in the loop")

        def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
            raise AssertionError("not reached")

    rig.index = Broken()
    rig.publish(created("acme", "one", rig.put("acme", "one.jpg", b"one")))
    running = rig.work()
    with pytest.raises(ZeroDivisionError), running:
        wait_until(lambda: running.error is not None)
    assert not any(rig.log.committed.values())


def test_two_tenants_with_the_same_image_id_have_two_points() -> None:
    """The image id is the tenant's own: the same id twice is two pictures."""
    rig = Rig()
    for tenant in ("acme", "globex"):
        rig.publish(created(tenant, "one", rig.put(tenant, "one.jpg", tenant.encode())))
    with rig.work() as running:
        running.settle(2)
    for tenant in ("acme", "globex"):
        assert rig.exact.count(tenant)[State.INDEXED] == 1


def test_event_from_the_future_is_invalid() -> None:
    """A version more than five minutes ahead would lock the image; it is refused."""
    rig = Rig()
    event = created("acme", "one", rig.put("acme", "one.jpg", b"one"), version=now_us() + 600_000_000)
    rig.publish(event)
    with rig.work() as running:
        running.settle(1)
    assert _dead_reasons(rig) == ["event_invalid"]
    assert rig.exact.get("acme", "one") is None


def test_everything_fails_for_everybody_stops_dead_lettering_until_it_is_mended() -> None:
    """With three tenants whose pictures all fail, few are dead-lettered, the rest is held uncommitted and the
    worker not ready; once the pictures are mended it goes on by itself, and nothing was lost."""
    rig = Rig(options=WorkerOptions(worker_id="w1", dead_letter_limit=12, breaker_probe_s=0.1))
    places = [(tenant, f"{n}.jpg") for n in range(20) for tenant in ("acme", "globex", "initech")]
    for tenant, name in places:
        rig.publish(created(tenant, name.removesuffix(".jpg"), rig.put(tenant, name, b"bad")))
    metric = rig.metrics.registry.get_sample_value
    with rig.work() as running:
        wait_until(lambda: metric("lookalike_dead_letter_breaker") == 1)
        assert metric("lookalike_paused", {"cause": "dead_letters"}) == 1
        assert [running.worker.ready, len(rig.dead()) < 40] == [False, True]
        for tenant, name in places:
            rig.put(tenant, name, b"good " + name.encode())
        running.settle(60)
        assert metric("lookalike_dead_letter_breaker") == 0
        assert running.worker.ready
    buried = len(rig.dead())
    assert buried < 40
    assert rig.states() == {"failed": buried, "indexed": 60 - buried}


def test_poisoned_tenant_alone_does_not_stop_the_worker() -> None:
    """One tenant with only bad pictures has all of them dead-lettered; the others go on."""
    rig = Rig(options=WorkerOptions(worker_id="w1", dead_letter_limit=12))
    for n in range(60):
        rig.publish(created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", b"bad")))
        rig.publish(created("globex", f"i{n}", rig.put("globex", f"{n}.jpg", b"%d" % n)))
    with rig.work() as running:
        running.settle(120)
    assert rig.states() == {"failed": 60, "indexed": 60}
    assert rig.metrics.registry.get_sample_value("lookalike_dead_letter_breaker") == 0


def test_age_of_the_oldest_event_is_told_and_outages_do_not_count() -> None:
    """The watchdog hears how long an event hangs in a stage, and nothing of the kind while the index is down."""
    rig, gate, told = Rig(), threading.Event(), list[float]()

    class Hanging(HashEngine):
        def embed(self, pixels: Pixels):  # type: ignore[no-untyped-def]
            gate.wait(30)
            return super().embed(pixels)

    rig.engine = Hanging()
    rig.publish(created("acme", "one", rig.put("acme", "one.jpg", b"one")))
    running = rig.work()
    running.worker._watch = told.append
    with running:
        wait_until(lambda: bool(told) and told[-1] > 0.5)
        running.worker._outages.down(DependencyError("index", "away"))
        wait_until(lambda: told[-1] == 0.0)
        running.worker._outages.up("index")
        gate.set()
        running.settle(1)
