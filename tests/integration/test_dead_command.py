"""`lookalike dead` on a real Kafka: what is listed, shown and replayed, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lookalike.cli import run
from streams.event import Location, created, deleted
from streams.topics import TopicNames, create, specs
from tests.conftest import Broker
from tests.kafka_rig import KafkaRig
from tests.worker_rig import BUCKET

KEPT_MS = 3600_000


@pytest.fixture
def rig(kafka: Broker, unique: str, monkeypatch: pytest.MonkeyPatch) -> KafkaRig:
    client = {"bootstrap.servers": kafka.bootstrap}
    names = TopicNames(prefix=f"{unique}.")
    create(client, specs(names, partitions=4))
    monkeypatch.setenv("LOOKALIKE_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("LOOKALIKE_KAFKA_TOPIC_PREFIX", names.prefix)
    return KafkaRig(client, names)


def _run(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["dead", *args, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def _bury_three(rig: KafkaRig) -> None:
    """Three dead letters: two bad pictures of two tenants, and a place that is forbidden."""
    rig.publish(
        created("acme", "one", rig.put("acme", "one.jpg", b"bad")),
        created("globex", "two", rig.put("globex", "two.jpg", b"bad")),
        created("acme", "three", Location(BUCKET, "globex/two.jpg")),
    )
    with rig.work() as running:
        running.settle()


def test_letters_are_chosen_by_reason_tenant_image_time_and_id(
    rig: KafkaRig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each option narrows the list; the counts are of what was chosen; one is shown whole."""
    _bury_three(rig)
    found = _run(capsys, "list")
    assert found["by_reason"] == {"image_unreadable": 2, "location_forbidden": 1}
    assert _run(capsys, "list", "--reason", "image_unreadable", "--tenant", "acme")["total"] == 1
    assert _run(capsys, "list", "--since", "2000-01-01", "--until", "2001-01-01")["total"] == 0
    (letter,) = _run(capsys, "list", "--image", "three")["letters"]
    assert _run(capsys, "list", "--id", letter["id"])["letters"] == [letter]
    shown = _run(capsys, "show", letter["id"])
    assert (shown["reason"], shown["key"], shown["stage"]) == ("location_forbidden", "acme/three", "receive")
    assert shown["origin"]["topic"] == f"{rig.names.prefix}images.live"
    assert run(["dead", "show", "9:9"]) == 1


def test_replay_indexes_what_was_mended_and_twice_changes_nothing(
    rig: KafkaRig, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the pictures are mended their dead letters are replayed, with their versions; again is unchanged."""
    _bury_three(rig)
    for tenant, name in (("acme", "one"), ("globex", "two")):
        rig.put(tenant, f"{name}.jpg", b"good")
    dry = _run(capsys, "replay", "--reason", "image_unreadable", "--dry-run")
    assert (dry["would_replay"], dry["replayed"]) == (2, 0)
    for state in ("indexed", "unchanged"):
        assert _run(capsys, "replay", "--reason", "image_unreadable")["replayed"] == 2
        with rig.work() as running:
            running.settle()
        assert rig.states()[state] >= 2
    point = rig.exact.get("acme", "one")
    assert point is not None
    assert (point.state.value, point.attempt) == ("indexed", None)
    assert rig.states() == {"failed": 3, "indexed": 2, "unchanged": 2}


def test_replay_of_what_was_deleted_since_does_not_resurrect(rig: KafkaRig, capsys: pytest.CaptureFixture[str]) -> None:
    """A delete that came after the failure wins over the replay."""
    _bury_three(rig)
    rig.put("acme", "one.jpg", b"good")
    rig.publish(deleted("acme", "one"))
    assert _run(capsys, "replay", "--all", "--lane", "live")["replayed"] == 3
    with rig.work() as running:
        running.settle()
    point = rig.exact.get("acme", "one")
    assert point is not None
    assert point.state.value == "deleted"


def test_create_older_than_deletes_are_remembered_needs_force(
    rig: KafkaRig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the life of tombstones a create is refused with exit 1; --force sends it."""
    _bury_three(rig)
    monkeypatch.setattr("streams.durability.tombstone_life_ms", lambda _configs, _names: -KEPT_MS)
    refused = _run(capsys, "replay", "--all", code=1)
    assert (refused["replayed"], len(refused["refused"])) == (0, 3)
    assert _run(capsys, "replay", "--all", "--force")["replayed"] == 3


def test_everything_must_be_said(rig: KafkaRig) -> None:
    """A replay without any choice is a usage error: all of it is rarely meant."""
    assert run(["dead", "replay"]) == 2
