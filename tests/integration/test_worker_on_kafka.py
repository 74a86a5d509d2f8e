"""A whole worker on a real Kafka: retries, dead letters, shunts, bad records, replays."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest

from embedder.index.points import AttemptState, State
from embedder.models.hash_engine import HashEngine
from embedder.models.protocol import Pixels
from embedder.stages.hash_decoder import HashDecoder, HashPicture
from embedder.worker import WorkerOptions
from streams.consume import lane
from streams.consume.offsets import PartitionOffsets
from streams.consume.retry import DUE_HEADER, RetryNote, retry_headers
from streams.consume.source import Delivery
from streams.errors import Reason
from streams.event import Location, created, encode, now_us
from streams.report.outcomes import OutcomeState
from streams.topics import SOURCE_MAX_BYTES, Lane, TopicNames, create, specs
from tests.conftest import Broker
from tests.kafka_rig import KafkaRig
from tests.records import BAD_FIELDS, DATA, HEADERS, NOT_DATA, record
from tests.waiting import wait_until
from tests.worker_rig import BUCKET, QUICK


@pytest.fixture
def rig(kafka: Broker, unique: str) -> KafkaRig:
    client = {"bootstrap.servers": kafka.bootstrap}
    names = TopicNames(prefix=f"{unique}.")
    create(client, specs(names, partitions=4))
    return KafkaRig(client, names)


def test_object_that_comes_late_is_found_by_a_retry(rig: KafkaRig) -> None:
    """An object stored after its event's tries in place is indexed from a retry topic, as one event."""
    event = created("acme", "one", Location(BUCKET, "acme/one.jpg"))
    rig.publish(event)
    with rig.work() as running:
        wait_until(lambda: any(one.state is OutcomeState.RETRYING for one in rig.all_outcomes()), timeout_s=30)
        point = rig.exact.get("acme", "one")
        assert point is not None
        assert point.attempt is not None
        assert (point.state, point.attempt.state) == (State.EMPTY, AttemptState.RETRYING)
        rig.put("acme", "one.jpg", b"one")
        wait_until(lambda: rig.states() == {"indexed": 1}, timeout_s=30)
        running.settle()
    (last,) = rig.outcomes()
    (point,) = rig.exact.read("acme", ["one"])
    assert point is not None
    assert (point.version, point.attempt) == (event.version, None)
    assert last.topic.startswith(f"{rig.names.prefix}images.retry.")
    assert event.first_published_us is not None
    assert last.freshness_s is not None
    assert last.freshness_s >= 0.4  # from the first publish, not from the retry's
    assert not rig.dead()


def test_object_that_never_comes_ends_with_its_history(rig: KafkaRig) -> None:
    """Three retry topics later the dead letter has the first place, all tries and one note per round."""
    event = created("acme", "one", Location(BUCKET, "acme/one.jpg"))
    rig.publish(event, created("acme", "two", rig.put("acme", "two.jpg", b"two")))
    with rig.work() as running:
        wait_until(lambda: rig.states() == {"indexed": 1, "failed": 1}, timeout_s=60)
        running.settle()
    (letter,) = rig.dead()
    named = {name: value.decode() for name, value in letter.headers}
    assert (named["lookalike.dead.reason"], named["lookalike.dead.cause"]) == ("attempts_exhausted", "image_missing")
    assert named["lookalike.dead.topic"] == rig.names.lane(Lane.LIVE)
    assert (letter.key, letter.value) == encode(event)[:2]
    history = json.loads(named["lookalike.dead.history"])
    assert [one["lane"] for one in history] == ["live", "retry.30s", "retry.5m"]
    assert int(named["lookalike.dead.attempts"]) > sum(one["tries"] for one in history)
    assert named["lookalike.first_published_us"] == str(event.first_published_us)
    assert not any(name.startswith("lookalike.retry.") for name in named)
    assert rig.metric("lookalike_retries_total", delay="30m") == 1


def test_retry_waits_for_its_time_and_nobody_waits_for_it(rig: KafkaRig) -> None:
    """A record that is due in some seconds is kept in hand, uncommitted; live goes on; its time comes."""
    event = created("acme", "one", rig.put("acme", "one.jpg", b"one"))
    key, value, headers = encode(event)
    owner = PartitionOffsets(rig.names.lane(Lane.LIVE), 0)
    delivery = Delivery(Lane.LIVE, owner.topic, 0, 0, key, value, headers, now_us() // 1000, owner)
    due_at_us = now_us() + 6_000_000
    options = rig.options
    rig.options = WorkerOptions(worker_id="w1", policy=QUICK, retry=type(options.retry).of((6.0, 7.0, 8.0)))
    late = retry_headers(delivery, due_at_us=due_at_us, note=RetryNote(), collection=rig.exact.spec().name)
    rig.send((key, value, late), lane=Lane.RETRY_30S)
    with rig.work() as running:
        wait_until(lambda: running.source.held == 1, timeout_s=30)
        rig.publish(created("acme", "two", rig.put("acme", "two.jpg", b"two")))
        wait_until(lambda: rig.states() == {"indexed": 1})
        assert now_us() < due_at_us, "live waited for the retry"
        assert rig.exact.get("acme", "one") is None
        wait_until(lambda: rig.lag() == 1)
        wait_until(lambda: rig.states() == {"indexed": 2}, timeout_s=30)
        assert now_us() >= due_at_us
        running.settle()


def test_retry_of_another_collection_is_left_to_its_workers(rig: KafkaRig) -> None:
    """A retry record of another collection is passed over: no fetch, no outcome, and its offset is finished."""
    event = created("acme", "one", rig.put("acme", "one.jpg", b"one"))
    key, value, headers = encode(event)
    rig.send((key, value, [*headers, (DUE_HEADER, b"1"), ("lookalike.collection", b"another")]), lane=Lane.RETRY_5M)
    with rig.work() as running:
        running.settle()
    assert rig.outcomes() == []
    assert rig.objects.reads == 0
    assert rig.metric("lookalike_skipped_total") == 1


class Slow(HashEngine):
    """A network that takes 10 ms a picture."""

    def embed(self, pixels: Pixels):  # type: ignore[no-untyped-def]
        threading.Event().wait(0.01 * len(pixels))
        return super().embed(pixels)


def test_tenant_above_its_share_moves_to_bulk_and_the_other_is_reached(rig: KafkaRig) -> None:
    """Behind a backlog of A in every partition, B is reached because A is moved to bulk; nothing is lost."""
    rig.engine = Slow()
    rig.options = WorkerOptions(worker_id="w1", policy=QUICK, retry=rig.options.retry, shunt_after_s=0.3)
    rig.publish(*(created("a", f"i{n}", rig.put("a", f"{n}.jpg", b"%d" % n)) for n in range(600)))
    rig.publish(*(created("b", f"i{n}", rig.put("b", f"{n}.jpg", b"%d" % n)) for n in range(4)))
    with rig.work() as running:
        wait_until(lambda: rig.exact.count("b")[State.INDEXED] == 4)
        assert rig.exact.count("a")[State.INDEXED] < 500, "B waited for all of A"
        running.settle()
    assert rig.exact.count("a")[State.INDEXED] == 600
    assert not rig.dead()
    assert rig.metric("lookalike_shunted_total") > 0
    bulk = [one for one in rig.outcomes() if one.topic == rig.names.lane(Lane.BULK)]
    assert {one.tenant_id for one in bulk} == {"a"}
    assert all(one.freshness_s is not None for one in bulk)


def test_partition_with_a_stuck_event_is_paused_and_the_others_go_on(
    rig: KafkaRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One event that takes for ever lets its partition run ahead only so far; when it ends, everything is done."""
    monkeypatch.setattr(lane, "MAX_SPAN", 40)
    gate = threading.Event()

    class Stuck(HashDecoder):
        def decode(self, data: bytes) -> HashPicture:
            if data == b"stuck":
                gate.wait(120)
            return super().decode(data)

    rig.decoder, rig.engine = Stuck(), Slow()
    rig.options = WorkerOptions(
        worker_id="w1",
        policy=QUICK,
        retry=rig.options.retry,
        max_in_flight=64,
        shunt_after_s=3600,  # on a slow machine the stuck partition would be emptied into bulk
    )
    rig.publish(created("acme", "stuck", rig.put("acme", "stuck.jpg", b"stuck")))
    rig.publish(*(created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", b"%d" % n)) for n in range(800)))
    records = rig.records(rig.names.lane(Lane.LIVE))
    lying = Counter(one.partition for one in records)
    (stuck,) = {one.partition for one in records if one.key == b"acme/stuck"}

    def done() -> Counter[int]:
        return Counter(one.partition for one in rig.outcomes())

    with rig.work() as running:
        try:
            wait_until(lambda: all(done()[partition] == n for partition, n in lying.items() if partition != stuck))
            looks = rig.polls()
            wait_until(lambda: rig.polls() > looks + 50)
            # beyond 40: what was in hand, and what was taken until the next look a tenth of a second later
            assert 0 < done()[stuck] < 140 < lying[stuck]
        finally:
            gate.set()
        running.settle()
    assert rig.states() == {"indexed": 801}


_Broken = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]


def _broken_records() -> list[tuple[_Broken, Reason]]:
    """Every record with the reason it must be given; their keys tell them apart, but for one without any."""
    good = {**HEADERS}
    values = [*NOT_DATA.values(), *(record(**fields) for fields in BAD_FIELDS.values())]
    values.append(json.dumps(DATA | {"tags": ["x" * 1_000_000]}).encode())
    headers: list[tuple[dict[str, bytes], Reason]] = [
        ({}, Reason.EVENT_INVALID),
        *(
            ({name: value for name, value in good.items() if name != left_out}, Reason.EVENT_INVALID)
            for left_out in good
        ),
        *((good | {name: b"\xff\xfe"}, Reason.EVENT_INVALID) for name in good),
        (good | {"ce_time": b"yesterday"}, Reason.EVENT_INVALID),
        (good | {"ce_type": b"lookalike.image.painted.v1"}, Reason.EVENT_UNSUPPORTED),
        (good | {"ce_type": b"lookalike.image.created.v2"}, Reason.EVENT_UNSUPPORTED),
        (good | {"ce_specversion": b"0.3"}, Reason.EVENT_UNSUPPORTED),
    ]
    found = [((value, good), Reason.EVENT_INVALID) for value in values]
    found += [((record(), one), reason) for one, reason in headers]
    return [
        ((b"k%d" % n if n else None, value, list(named.items())), reason)
        for n, ((value, named), reason) in enumerate(found)
    ]


def test_every_malformed_record_is_one_dead_letter_and_its_neighbours_are_untouched(rig: KafkaRig) -> None:
    """Every way to spoil a record, between good ones: one dead letter each, byte for byte, each for its reason."""
    broken = _broken_records()
    rig.options = WorkerOptions(worker_id="w1", policy=QUICK, retry=rig.options.retry, dead_letter_limit=0)
    good = [created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", b"%d" % n)) for n in range(len(broken))]
    rig.send(*(one for pair in zip((one for one, _ in broken), map(encode, good), strict=True) for one in pair))
    with rig.work() as running:
        running.settle()
    assert rig.states() == {"indexed": len(good), "failed": len(broken)}
    letters = {one.key: one for one in rig.dead()}
    assert len(rig.dead()) == len(letters) == len(broken)
    for (key, value, _), reason in broken:
        headers = dict(letters[key].headers)
        assert (letters[key].value or b"") == (value or b"")
        assert headers["lookalike.dead.reason"].decode() == reason.value, (key, headers)


def test_record_at_the_size_limit_still_fits_as_a_dead_letter(rig: KafkaRig) -> None:
    """A value as large as the source takes, incompressible, is dead-lettered whole with its history."""
    import os

    value = b"\xff" + os.urandom(SOURCE_MAX_BYTES - 2000)
    rig.send((b"k", value, [("ce_id", b"1")]))
    with rig.work() as running:
        running.settle()
    (letter,) = rig.dead()
    assert letter.value == value


def test_large_record_that_compresses_well_is_no_poison(rig: KafkaRig) -> None:
    """Ten megabytes of one letter fit into a topic of one: the dead letter is whole, and the worker lives on."""
    value = b"x" * 10_000_000
    rig.send((b"k", value, [("ce_id", b"1")]))
    good = created("acme", "one", rig.put("acme", "one.jpg", b"one"))
    rig.publish(good)
    with rig.work() as running:
        running.settle()
    (letter,) = rig.dead()
    assert letter.value == value
    assert rig.states() == {"failed": 1, "indexed": 1}


def test_topic_replayed_twice_fetches_nothing_that_is_settled(rig: KafkaRig) -> None:
    """All events once more, twice: the same points, and no object is read but that of the failed picture."""
    events = [created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", b"%d" % n)) for n in range(30)]
    bad = created("acme", "bad", rig.put("acme", "bad.jpg", b"bad"))
    rig.publish(*events, bad)
    with rig.work() as running:
        running.settle()
        reads, before = rig.objects.reads, rig.exact.count("acme")
        for _ in range(2):
            rig.publish(*events, bad)
            running.settle()
    assert rig.exact.count("acme") == before
    assert rig.objects.reads == reads + 2
    assert rig.states() == {"indexed": 30, "unchanged": 60, "failed": 3}
