"""The pulse on a real Kafka: whatever happens to it, its figures are those of a recount of the topics."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from streams.backlog import BacklogWatch
from streams.errors import Reason
from streams.group import GroupWatch
from streams.onward import DEAD_PREFIX
from streams.producer import KafkaProducer
from streams.pulse import EXIT_REBUILD, STALE_S
from streams.report.outcomes import Outcome, OutcomeState, encode
from streams.tail import Tail, extent
from streams.tenant_view import OTHER, UNKNOWN
from streams.topics import Lane, TopicNames, create, specs
from tests.pulse_process import Publishing, PulseProcess
from tests.waiting import wait_until

Send = Callable[[Iterable[int]], None]
TENANTS = ("acme", "blue", "coral")


class _Kafka(Protocol):
    @property
    def bootstrap(self) -> str: ...


@pytest.fixture
def client(kafka: _Kafka) -> dict[str, Any]:
    return {"bootstrap.servers": kafka.bootstrap, "log_level": 0}


@pytest.fixture
def names(client: dict[str, Any], unique: str) -> TopicNames:
    found = TopicNames(prefix=f"{unique}.")
    create(client, specs(found, partitions=16))
    return found


@pytest.fixture
def pulse(kafka: _Kafka, names: TopicNames, tmp_path: Path) -> Iterator[PulseProcess]:
    process = PulseProcess(tmp_path, bootstrap=kafka.bootstrap, prefix=names.prefix)
    with process:
        yield process


@pytest.fixture
def send(client: dict[str, Any], names: TopicNames) -> Send:
    """Sends the n-th records of a stream in which everything occurs: success, failure, dead letters, poison."""

    def put(topic: str, key: bytes | None, value: bytes | None, **headers: str) -> tuple[str, Any, Any, Any]:
        return topic, key, value, [(DEAD_PREFIX + name, text.encode()) for name, text in headers.items()]

    def nth(n: int) -> list[tuple[str, Any, Any, Any]]:
        tenant = TENANTS[n % 7 % 3]
        key = f"{tenant}/picture-{n}".encode()
        if n % 11 == 3:
            failed = _outcome(tenant, n, OutcomeState.FAILED, Reason.IMAGE_UNREADABLE)
            return [put(names.dead, key, b"event", reason="image_unreadable"), put(names.outcomes, key, failed)]
        if is_poison(n):
            return [
                put(names.outcomes, b"\xff\xfe", b"\x00 no json \xff"),
                put(names.outcomes, None, None),
                put(names.outcomes, key, b'{"state": "never heard of"}'),
                put(names.dead, b"../../etc", None),
                put(names.dead, None, b"\xff", reason="event_invalid"),
            ]
        return [put(names.outcomes, key, _outcome(tenant, n, OutcomeState.INDEXED))]

    def send_these(numbers: Iterable[int]) -> None:
        with KafkaProducer(client) as producer:  # a new one each time: it knows of partitions that were added
            for topic, key, value, headers in (record for n in numbers for record in nth(n)):
                producer.send(topic, key=key, value=value, headers=headers, on_ack=lambda error: None)
            assert producer.flush(30) == 0

    return send_these


def is_poison(n: int) -> bool:
    return n % 50 == 7 and n % 11 != 3


def _outcome(tenant: str | None, n: int, state: OutcomeState, reason: Reason | None = None) -> bytes:
    freshness_s = 0.05 + n % 10 / 100 if state is OutcomeState.INDEXED else None
    outcome = Outcome(
        state=state,
        topic="images.live",
        partition=0,
        offset=n,
        collection="c",
        worker="w",
        at_us=0,
        tenant_id=tenant,
        reason=reason,
        freshness_s=freshness_s,
    )
    return encode(outcome)


Recount = dict[str, dict[str, Counter[str]]]


def recount(client: dict[str, Any], names: TopicNames, *, begin: float, end: float) -> Recount:
    """By tenant and kind what lies in the two topics between two times, read without Faust and without the view."""
    found: Recount = defaultdict(lambda: defaultdict(Counter))
    for topic in (names.outcomes, names.dead):
        there = extent(client, topic)
        left = sum(there.next_offset.values()) - sum(there.first_offset.values())
        with Tail(client, topic, start=there.first_offset) as tail:
            while left > 0:
                for record in tail.poll(wait_s=0.5):
                    left -= 1
                    if not begin <= record.timestamp_ms / 1000 < end:
                        continue
                    if topic == names.dead:
                        tenant = (record.key or b"").split(b"/")[0].decode("ascii", "replace")
                        reason = dict(record.headers).get(f"{DEAD_PREFIX}reason", UNKNOWN.encode()).decode()
                        found[tenant if tenant in TENANTS else UNKNOWN]["dead_letters"][reason] += 1
                        continue
                    try:
                        value = json.loads(record.value or b"")
                    except ValueError:
                        continue
                    if value["state"] not in list(OutcomeState):
                        continue
                    found[value["tenant_id"]]["outcomes"][value["state"]] += 1
                    if value["state"] == "failed":
                        found[value["tenant_id"]]["failures"][value["reason"]] += 1
    return found


def as_recount(page: dict[str, Any]) -> Recount:
    """The view's figures in the recount's shape."""
    return {
        row["tenant_id"]: {kind: Counter(row[kind]) for kind in ("outcomes", "failures", "dead_letters") if row[kind]}
        for row in page["tenants"]
    }


def read_all(pulse: PulseProcess, client: dict[str, Any], names: TopicNames) -> dict[str, Any]:
    """The page once the view has read everything that is in the topics now."""
    wanted = _read_to(client, names)
    wait_until(lambda: _has_read(pulse, wanted), timeout_s=90.0)
    return pulse.page()


def _read_to(client: dict[str, Any], names: TopicNames) -> dict[str, int]:
    """Where the topics end now."""
    return {
        f"{topic}/{number}": offset
        for topic in (names.outcomes, names.dead)
        for number, offset in extent(client, topic).next_offset.items()
    }


def _has_read(pulse: PulseProcess, wanted: Mapping[str, int]) -> bool:
    try:
        read_to = pulse.page()["read_to"]
    except OSError:
        pulse.ended(timeout_s=10.0)  # its port is closed a moment before it is gone; one that lives answers
        return False
    return {at: read_to.get(at, 0) for at in wanted} == wanted


def assert_equal_to_a_recount(pulse: PulseProcess, client: dict[str, Any], names: TopicNames) -> dict[str, Any]:
    page = read_all(pulse, client, names)
    counted = recount(client, names, begin=page["window"]["from"], end=page["window"]["to"])
    assert as_recount(page) == {tenant: dict(kinds) for tenant, kinds in counted.items()}
    return page


def test_figures_are_those_of_a_recount_with_poison_between_them(
    pulse: PulseProcess, client: dict[str, Any], names: TopicNames, send: Send
) -> None:
    """Records that are none are passed over; what could not be read as an event counts as nobody's."""
    send(range(2000))
    page = assert_equal_to_a_recount(pulse, client, names)
    assert sum(sum(row["outcomes"].values()) for row in page["tenants"]) == 2000 - sum(map(is_poison, range(2000)))
    assert page["repeated"] == 0
    acme = next(row for row in page["tenants"] if row["tenant_id"] == "acme")
    assert 0.05 <= acme["freshness_s"]["p50"] <= 0.11
    assert UNKNOWN in {row["tenant_id"] for row in page["tenants"]}


def test_a_view_that_is_killed_again_and_again_shows_all_of_its_window(
    pulse: PulseProcess, client: dict[str, Any], names: TopicNames, send: Send
) -> None:
    """kill -9 while records come, three times: the next process reads the last 15 minutes anew."""
    publishing = Publishing(send, n=3000, pause_s=0.1)
    for kill in range(3):
        wait_until(lambda kill=kill: publishing.sent >= 600 * (kill + 1))  # type: ignore[misc]
        pulse.kill()
        pulse.start()
    publishing.wait()
    assert_equal_to_a_recount(pulse, client, names)


def test_rebalances_lose_and_double_nothing(
    pulse: PulseProcess, client: dict[str, Any], names: TopicNames, send: Send
) -> None:
    """Partitions are added twice while records come: each time the group is dealt anew."""
    publishing = Publishing(send, n=3000, pause_s=0.1)
    admin = AdminClient(client)
    for n_partitions in (4, 6):
        wait_until(lambda n=n_partitions: publishing.sent >= 300 * n)  # type: ignore[misc]
        for future in admin.create_partitions([NewPartitions(names.outcomes, n_partitions)]).values():
            future.result()
    publishing.wait()
    send(range(3000, 3300))
    assert len([at for at in assert_equal_to_a_recount(pulse, client, names)["read_to"] if "outcomes" in at]) == 6


@pytest.mark.timeout(480)
def test_a_process_that_slept_past_its_session_comes_back(
    pulse: PulseProcess, client: dict[str, Any], names: TopicNames, send: Send
) -> None:
    """The group throws it out; when it wakes it joins again and goes on, or ends with 70 and a new one reads anew."""
    send(range(500))
    read_all(pulse, client, names)
    group_id = _group_of_the_pulse(client, names)
    watch = GroupWatch(client, group_id)
    pulse.send(signal.SIGSTOP)
    wait_until(lambda: watch.owned_partitions({names.outcomes}) == 0, timeout_s=60.0)
    send(range(500, 1000))
    pulse.send(signal.SIGCONT)
    wanted = _read_to(client, names)
    wait_until(lambda: pulse.has_ended or _has_read(pulse, wanted), timeout_s=STALE_S + 60.0)
    if pulse.has_ended:  # its client was stuck, which it notices after STALE_S
        assert pulse.ended() == EXIT_REBUILD, pulse.log
        pulse.start()
    assert_equal_to_a_recount(pulse, client, names)


def _group_of_the_pulse(client: dict[str, Any], names: TopicNames) -> str:
    """The one whose commits are in this test's topics."""
    admin = AdminClient(client)
    groups = [str(one.group_id) for one in admin.list_consumer_groups().result().valid]
    owners = [one for one in groups if one.startswith("lookalike-pulse-")]
    watched = [one for one in owners if GroupWatch(client, one).owned_partitions({names.outcomes})]
    assert len(watched) == 1, watched
    return watched[0]


def test_a_stop_that_was_asked_for_ends_with_0(pulse: PulseProcess) -> None:
    """SIGTERM is no failure, and takes no session's time."""
    pulse.send(signal.SIGTERM)
    assert pulse.ended(timeout_s=20.0) == 0, pulse.log


def test_a_bug_in_reading_ends_the_process_before_anything_is_acknowledged(
    kafka: _Kafka, names: TopicNames, tmp_path: Path, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 70 at once: Faust would acknowledge the record and go on as if it were counted."""
    broken = "from streams import pulse as p; p.FaustView._outcome = lambda *_: 1 / 0; "
    monkeypatch.setattr("tests.pulse_process.ENTRY", "import lookalike.pulse\n" + broken + _ENTRY)
    with PulseProcess(tmp_path, bootstrap=kafka.bootstrap, prefix=names.prefix) as pulse:
        send([0])
        assert pulse.ended() == 70
        assert "built anew" in pulse.log


_ENTRY = "import sys; from lookalike.cli import run; sys.exit(run(['pulse']))"


def test_nothing_listens_but_what_was_asked_for(pulse: PulseProcess) -> None:
    """Faust's own web server would answer anybody with what tables hold: there is none, on no address."""
    port = int(pulse.url.rpartition(":")[2])
    assert pulse._process is not None
    assert _listening(pulse._process.pid) == {("127.0.0.1", port)}


def _listening(pid: int) -> set[tuple[str, int]]:
    import psutil

    found = psutil.Process(pid).net_connections(kind="inet")
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}


def test_backlog_says_how_much_how_old_and_whose(client: dict[str, Any], names: TopicNames) -> None:
    """Counted where few wait, estimated where many do; the oldest record is the one at the committed offset."""
    topics = [names.lane(lane) for lane in Lane]
    with closing(BacklogWatch(client, "nobody", topics)) as watch, KafkaProducer(client) as producer:
        empty = watch.measure()
        assert empty.total == 0
        assert dict(empty.oldest_age_s) == dict.fromkeys(topics)
        assert empty.by_tenant == {}
        for n in range(20):
            key = f"{TENANTS[n % 2]}/p{n}".encode()
            producer.send(names.lane(Lane.LIVE), key=key, value=b"{}", headers=[], on_ack=lambda error: None)
        producer.flush(10)
        sent_at = time.time()
        few = watch.measure()
        assert few.by_tenant == {"acme": 10, "blue": 10}
        age_s = few.oldest_age_s[names.lane(Lane.LIVE)]
        assert age_s is not None
        assert age_s >= time.time() - sent_at - 1
        for n in range(3000):
            key = f"{TENANTS[n % 3]}/q{n}".encode()
            producer.send(names.lane(Lane.BULK), key=key, value=b"{}", headers=[], on_ack=lambda error: None)
        producer.flush(30)
        many = watch.measure()
    assert many.total == 3020
    assert sum(many.by_tenant.values()) == pytest.approx(3020)
    assert all(500 <= many.by_tenant[tenant] <= 1600 for tenant in TENANTS)
    assert watch.retention_s()[names.lane(Lane.LIVE)] == 7 * 24 * 3600


def test_the_pulse_is_as_quick_and_as_small_with_a_thousand_tenants(
    pulse: PulseProcess, client: dict[str, Any], names: TopicNames
) -> None:
    """The number of series is the same for 100 tenants and for 1,000: the top ones have rows, all others are one."""
    series = []
    with KafkaProducer(client) as producer:
        for n_tenants in (100, 1000):
            for n in range(n_tenants * 5):
                tenant = f"tenant-{n % n_tenants}"
                value = _outcome(tenant, n, OutcomeState.INDEXED)
                producer.send(names.outcomes, key=tenant.encode(), value=value, headers=[], on_ack=lambda error: None)
            producer.flush(30)
            page = read_all(pulse, client, names)
            assert page["tenants"][-1]["tenant_id"] == OTHER
            assert sum(row["tenants"] for row in page["tenants"]) == n_tenants
            text = pulse.get("/metrics")[1]
            series.append(len([line for line in text.splitlines() if not line.startswith("#")]))
    assert series[0] == series[1]
