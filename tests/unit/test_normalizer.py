"""A whole normalizer without services: what it announces, what it leaves alone, and what it never loses."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import pytest
from prometheus_client import CollectorRegistry

from embedder.index.points import State
from embedder.normalize.metrics import NormalizeMetrics
from embedder.normalize.normalizer import Normalizer, NormalizerOptions
from embedder.normalize.queue import DelayQueue
from embedder.normalize.scope import Scope
from embedder.objects.grants import Grants
from embedder.objects.memory import MemoryObjects
from embedder.objects.protocol import ObjectMissingError
from streams.errors import DependencyError, Reason, RetryableError
from streams.event import ImageEvent, Location, now_us, parse
from streams.memory import MemoryLog, MemoryProducer, MemorySource
from streams.notifications.keys import KeyTemplate
from streams.notifications.source import LANE, NotificationNames
from streams.producer import OnAck, Producer
from streams.topics import Lane, TopicNames
from tests.notifications import aws, minio
from tests.waiting import wait_until
from tests.worker_rig import Rig

NAMES = TopicNames()
BUCKET, KEY = "pictures", "acme/cat.jpg"
CAT = (BUCKET, KEY)
PUT, REMOVED = "ObjectCreated:Put", "ObjectRemoved:Delete"


@dataclass
class Bucket:
    """The log, the objects and a normalizer between them; survives each normalizer."""

    log: MemoryLog = field(default_factory=lambda: MemoryLog(n_partitions=1))
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    metrics: NormalizeMetrics = field(default_factory=lambda: NormalizeMetrics(CollectorRegistry()))
    options: NormalizerOptions = field(
        default_factory=lambda: NormalizerOptions(worker_id="n1", look_again_s=0.2, retry_window_s=0.3, drain_s=5)
    )

    def notify(self, name: str, key: str = KEY, *, bucket: str = BUCKET) -> None:
        self.append(minio(name, bucket, key))

    def append(self, value: bytes | None) -> None:
        self.log.append(NAMES.notifications, key=b"k", value=value, headers=[("h", b"1")])

    def events(self) -> list[ImageEvent]:
        """What was announced, as the worker will read it."""
        records = self.log.records(NAMES.lane(Lane.LIVE))
        return [parse(record.value, record.headers, at_us=now_us()) for record in records]

    def said(self) -> list[tuple[str, str, str | None]]:
        """(created or deleted, image, ETag) of each."""
        return [
            ("deleted" if one.is_delete else "created", one.image_id, one.location.etag if one.location else None)
            for one in self.events()
        ]

    def dead(self) -> list[dict[str, str]]:
        return [
            {name.removeprefix("lookalike.dead."): value.decode() for name, value in record.headers}
            for record in self.log.records(NAMES.dead)
        ]

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("lookalike_notifications_total", {"result": result}) or 0.0

    @property
    def committed(self) -> int:
        return self.log.committed.get((NAMES.notifications, 0), 0)

    def settle(self) -> None:
        """Until every record is finished and committed."""
        wait_until(lambda: self.committed == len(self.log.records(NAMES.notifications)))


class Running:
    """A normalizer in a thread; leaving the block drains it and raises what ended it."""

    def __init__(self, bucket: Bucket, producer: Producer | None = None) -> None:
        self.stop = threading.Event()
        self.source = MemorySource(bucket.log, names=NotificationNames(), lanes=(LANE,))
        self.own = MemoryProducer(bucket.log)
        self.error: BaseException | None = None
        self.left: int | None = None
        self.normalizer = Normalizer(
            source=self.source,
            producer=producer or self.own,
            objects=bucket.objects,
            scope=Scope([BUCKET], Grants([BUCKET]), KeyTemplate(), ["skipped/"]),
            names=NAMES,
            metrics=bucket.metrics,
            options=bucket.options,
            stop=self.stop,
        )
        self.thread = threading.Thread(target=self._run, name="normalizer")

    def _run(self) -> None:
        try:
            self.left = self.normalizer.run()
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            self.error = exc

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join(30)
        self.own.close()
        assert not self.thread.is_alive(), "the normalizer did not end"
        if self.error is not None and error is None:
            raise self.error


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def cat(bucket: Bucket) -> str:
    """An object that somebody else put; its ETag."""
    bucket.objects.objects[CAT] = b"cat"
    return bucket.objects.head(_at(KEY)).etag


def _at(key: str) -> Location:

    return Location(BUCKET, key)


def test_an_upload_is_announced_as_it_lies_there(bucket: Bucket, cat: str) -> None:
    """With tenant and image from its key, the store's ETag and size, and the time of the look as version."""
    before_us = now_us()
    with Running(bucket):
        bucket.notify(PUT)
        bucket.settle()
    (event,) = bucket.events()
    assert (event.tenant_id, event.image_id, event.source) == ("acme", "cat", "lookalike/normalize")
    assert before_us <= event.version <= now_us()
    assert event.location is not None
    assert (event.location.bucket, event.location.key) == CAT
    assert (event.location.etag, event.location.size_bytes) == (cat, 3)
    assert bucket.log.records(NAMES.lane(Lane.LIVE))[0].key == b"acme/cat"


def test_a_removal_is_announced_once_nothing_is_there(bucket: Bucket) -> None:
    """At once: there is nothing to wait for."""
    with Running(bucket):
        bucket.notify(REMOVED)
        bucket.settle()
    assert bucket.said() == [("deleted", "cat", None)]


@pytest.mark.parametrize("name", [REMOVED, "ObjectRemoved:DeleteMarkerCreated", "ObjectRemoved:NoOP"])
def test_a_removal_whose_object_is_there_means_created(bucket: Bucket, cat: str, name: str) -> None:
    """It was put again meanwhile, or an old version was removed: the HEAD decides."""
    with Running(bucket):
        bucket.notify(name)
        bucket.settle()
    assert bucket.said() == [("created", "cat", cat)]


def test_an_upload_that_is_gone_is_looked_for_and_then_removed(bucket: Bucket) -> None:
    """Put and deleted within a second: what is not there is announced as not there."""
    with Running(bucket):
        bucket.notify(PUT)
        bucket.settle()
    assert bucket.said() == [("deleted", "cat", None)]
    assert bucket.objects.reads > 1


def test_an_upload_that_shows_late_is_announced(bucket: Bucket) -> None:
    """A store may tell of an object before it shows it."""
    bucket.objects.objects[CAT] = b"cat"
    bucket.objects.faults[CAT] = deque([ObjectMissingError()])
    with Running(bucket):
        bucket.notify(PUT)
        bucket.settle()
    assert [kind for kind, *_ in bucket.said()] == ["created"]


@pytest.mark.parametrize(
    "value",
    [
        minio("ObjectCreated:PutTagging", *CAT),
        aws(("ObjectTagging:Put", *CAT)),
        b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "pictures"}',
        minio("ObjectAccessed:Get", *CAT),
        minio(PUT, "thumbnails", KEY),
        minio(PUT, BUCKET, "thumbs/acme/cat.jpg"),
        minio(PUT, BUCKET, "skipped/cat.jpg"),
        minio(PUT, BUCKET, "acme/"),
        minio(PUT, BUCKET, "acme/notes"),
        minio(PUT, BUCKET, "Acme/cat.jpg"),
        minio(PUT, BUCKET, "../acme/cat.jpg"),
    ],
)
def test_what_is_no_work_costs_no_request(bucket: Bucket, cat: str, value: bytes) -> None:
    """Tags, tests, other kinds, other buckets and prefixes: finished, not looked at, not dead-lettered."""
    reads = bucket.objects.reads
    with Running(bucket):
        bucket.append(value)
        bucket.settle()
    assert (bucket.said(), bucket.dead()) == ([], [])
    assert bucket.objects.reads == reads
    assert bucket.count("ignored") == 1


def test_what_was_put_through_this_project_is_announced_by_whoever_put_it(bucket: Bucket) -> None:
    """A second event without its tags and attributes would take them away. Its removal is announced all the same."""
    bucket.objects.put(*CAT, b"cat")
    with Running(bucket):
        bucket.notify(PUT)
        bucket.settle()
        assert bucket.said() == []
        bucket.objects.delete(*CAT)
        bucket.notify(REMOVED)
        bucket.settle()
    assert bucket.said() == [("deleted", "cat", None)]
    assert bucket.count("own") == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "event_invalid"),
        (None, "event_invalid"),
        (minio(PUT, *CAT, source="ceph:s3"), "event_unsupported"),
        (minio(PUT, BUCKET, "acme/my cat.jpg"), "event_invalid"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter(bucket: Bucket, value: bytes | None, reason: str) -> None:
    """The whole record with its reason, to be replayed; what comes behind it is not held up."""
    with Running(bucket):
        bucket.append(value)
        bucket.notify(REMOVED)
        bucket.settle()
    (letter,) = bucket.dead()
    assert (letter["reason"], letter["topic"], letter["stage"]) == (reason, NAMES.notifications, "normalize")
    assert letter["h"] == "1"
    assert bucket.log.records(NAMES.dead)[0].value == value
    assert len(bucket.said()) == 1


def test_one_bad_event_does_not_hide_its_neighbours(bucket: Bucket, cat: str) -> None:
    """A message of several is announced as far as it can be read, and dead-lettered for the rest."""
    with Running(bucket):
        bucket.append(aws((PUT, BUCKET, ""), (PUT, *CAT), ("ObjectRemoved:Delete", BUCKET, "acme/dog.jpg")))
        bucket.settle()
    assert sorted(bucket.said()) == [("created", "cat", cat), ("deleted", "dog", None)]
    assert [letter["reason"] for letter in bucket.dead()] == ["event_invalid"]


def test_an_object_that_cannot_be_asked_about_is_never_called_deleted(bucket: Bucket, cat: str) -> None:
    """A server error is tried again; one that stays is a dead letter with its cause."""
    busy = RetryableError(Reason.IMAGE_MISSING, "503")
    bucket.objects.faults[CAT] = deque([busy] * 2)
    with Running(bucket):
        bucket.notify(REMOVED)
        bucket.settle()
        assert bucket.said() == [("created", "cat", cat)]
        bucket.objects.faults[CAT] = deque([busy] * 1000)
        bucket.notify(REMOVED)
        bucket.settle()
    assert len(bucket.said()) == 1
    (letter,) = bucket.dead()
    assert (letter["reason"], letter["cause"]) == ("attempts_exhausted", "image_missing")
    assert int(letter["attempts"]) > 1


def test_what_nobody_expected_is_a_dead_letter_with_its_traceback(bucket: Bucket, cat: str) -> None:
    """After three tries; the thread goes on."""
    bucket.objects.faults[CAT] = deque([ZeroDivisionError("?")] * 3)
    with Running(bucket):
        for _ in range(2):
            bucket.notify(PUT)
            bucket.settle()
    (letter,) = bucket.dead()
    assert (letter["reason"], letter["attempts"]) == ("internal_error", "3")
    assert "Traceback" in letter["message"]
    assert bucket.said() == [("created", "cat", cat)]


def test_a_store_that_is_down_pauses_and_loses_nothing(bucket: Bucket, cat: str) -> None:
    """Nothing is announced, committed or dead-lettered until it is back; then everything is."""
    bucket.objects.faults[CAT] = deque([DependencyError("bucket", "down")] * 4)
    with Running(bucket):
        for _ in range(20):
            bucket.notify(PUT)
        paused = bucket.metrics.paused.labels("bucket")
        wait_until(lambda: paused._value.get() == 1)
        assert (bucket.said(), bucket.committed) == ([], 0)
        bucket.settle()
        assert paused._value.get() == 0
    assert bucket.said() == [("created", "cat", cat)] * 20
    assert bucket.dead() == []


def test_a_stop_while_the_store_is_down_does_not_wait_for_it(bucket: Bucket, cat: str) -> None:
    """The notification stays uncommitted, and the next process announces it."""
    bucket.objects.faults[CAT] = deque([DependencyError("bucket", "down")] * 1000)
    with Running(bucket) as running:
        bucket.notify(PUT)
        wait_until(lambda: bucket.metrics.paused.labels("bucket")._value.get() == 1)
    assert running.left == 1
    assert bucket.committed == 0
    bucket.objects.faults.clear()
    with Running(bucket):
        bucket.settle()
    assert bucket.said() == [("created", "cat", cat)]


class Silent:
    """A producer whose broker has not answered yet."""

    def __init__(self) -> None:
        self.waiting: list[OnAck] = []

    def send(self, topic: str, *, key: object, value: object, headers: object, on_ack: OnAck) -> None:
        self.waiting.append(on_ack)

    def flush(self, timeout_s: float) -> int:
        return len(self.waiting)


def test_an_offset_is_finished_only_after_its_event_is_acknowledged(bucket: Bucket, cat: str) -> None:
    """Until then whoever dies gets the notification again."""
    silent = Silent()
    with Running(bucket, silent) as running:
        bucket.notify(PUT)
        bucket.append(b"not json")
        wait_until(lambda: len(silent.waiting) == 2)
        for _ in range(10):
            running.source.poll(0)
        assert bucket.committed == 0
        silent.waiting.pop(0)(None)
        silent.waiting.pop(0)(None)
        bucket.settle()


def test_a_refusal_of_the_broker_ends_the_process_with_nothing_finished(bucket: Bucket, cat: str) -> None:
    """Another start finds the notification where it was."""
    silent = Silent()
    running = Running(bucket, silent)
    running.thread.start()
    bucket.notify(PUT)
    wait_until(lambda: len(silent.waiting) == 1)
    silent.waiting[0](DependencyError("broker", "refused"))
    running.thread.join(30)
    running.own.close()
    assert isinstance(running.error, DependencyError)
    assert bucket.committed == 0


def test_what_waits_longer_comes_before_what_came_later() -> None:
    """Under a flood of new notifications, one that was put off is due in its time, and is handed out then."""
    now = [0.0]
    queue: DelayQueue[str] = DelayQueue(lambda: now[0])
    queue.put("put off", delay_s=1.0)
    queue.put("first")
    assert queue.take() == "first"
    now[0] = 1.5
    queue.put("later")
    assert [queue.take(), queue.take()] == ["put off", "later"]
    queue.close()
    assert queue.take() is None


# ---- to the end: what the index holds ------------------------------------------------------------------


@pytest.fixture
def rig(bucket: Bucket) -> Rig:
    """A worker beside the normalizer, on the same log and objects."""
    return Rig(log=bucket.log, objects=bucket.objects)


def _put(data: bytes) -> Callable[[Bucket], None]:
    def put(bucket: Bucket) -> None:
        bucket.objects.objects[CAT] = data
        bucket.notify(PUT)

    return put


def _delete(bucket: Bucket) -> None:
    bucket.objects.delete(*CAT)
    bucket.notify(REMOVED)


A, B = _put(b"picture a"), _put(b"picture b")


@pytest.mark.parametrize("late", [False, True], ids=["seen at once", "seen when all is over"])
@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ((A, B), b"picture b"),
        ((A, _delete), None),
        ((A, _delete, B), b"picture b"),
        ((_delete, A), b"picture a"),
        ((A, B, _delete, A), b"picture a"),
    ],
    ids=["put–put", "put–delete", "put–delete–put", "delete–put", "all"],
)
def test_changes_within_a_second_leave_what_is_there(
    bucket: Bucket, rig: Rig, changes: tuple[Callable[[Bucket], None], ...], left: bytes | None, late: bool
) -> None:
    """The index holds the object that the bucket holds, or none; once it does, repetitions are not fetched again."""
    with rig.work():
        if late:
            for change in changes:
                change(bucket)
        with Running(bucket):
            for change in () if late else changes:
                change(bucket)
                bucket.settle()
            bucket.settle()
            wait_until(lambda: _is_indexed(rig, left))
            events = len(bucket.events())
            wait_until(lambda: len(rig.outcomes()) == events)
            reads = bucket.objects.reads
            bucket.notify(PUT if left is not None else REMOVED)
            bucket.settle()
            wait_until(lambda: len(rig.outcomes()) == events + 1)
    assert _is_indexed(rig, left)
    assert bucket.objects.reads == reads + 1, "the normalizer's HEAD, and nothing of the worker's"
    assert rig.dead() == []


def _is_indexed(rig: Rig, left: bytes | None) -> bool:
    (point,) = rig.exact.read("acme", ["cat"])
    if point is None:
        return False
    if left is None:
        return point.state is State.DELETED
    return point.state is State.INDEXED and point.etag == MemoryObjects({CAT: left}).head(_at(KEY)).etag


def test_the_removal_of_an_old_version_is_none(bucket: Bucket, rig: Rig, cat: str) -> None:
    """The picture stays searchable and is not fetched again: there is an object, with the ETag that is stored."""
    with rig.work(), Running(bucket):
        bucket.notify(PUT)
        wait_until(lambda: len(rig.outcomes()) == 1)
        reads = bucket.objects.reads
        bucket.notify(REMOVED)
        wait_until(lambda: len(rig.outcomes()) == 2)
    assert rig.states() == {"indexed": 1, "unchanged": 1}
    assert bucket.objects.reads == reads + 1
