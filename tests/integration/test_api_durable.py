"""Posts and deletes on a real Kafka, index process and folder, the API killed with -9 between their steps.

Result of each: whoever got no answer repeats the request, and the outcome is that of one request that
nobody disturbed. At no moment is there an event without its object, or a note without its event.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from embedder.index.points import AttemptState, Point, PutVector, State
from embedder.index.query import like
from embedder.index.service.client import IndexClient
from embedder.objects.folder import FolderStore
from embedder.objects.protocol import ObjectMissingError
from streams.event import EventType, ImageEvent, Location, now_us, parse
from streams.tail import Tail, TailRecord, extent
from streams.topics import Lane, TopicNames, create, specs
from tests.api_rig import BUCKET, PLACES, SPEC, TENANT, HashQueryEmbedder, picture
from tests.index_process import IndexProcess
from tests.mortal_api import MortalApi
from tests.waiting import wait_until

IMAGES = f"/v1/tenants/{TENANT}/images"
NEW = f"{IMAGES}/new"


class _Kafka(Protocol):
    @property
    def bootstrap(self) -> str: ...


@dataclass
class World:
    """Everything that outlives the API."""

    about: dict[str, str]
    process: IndexProcess
    index: IndexClient
    objects: FolderStore

    def api(self, die: str = "", **about: str) -> MortalApi:
        return MortalApi(die=die, **{**self.about, **about})

    def events(self) -> list[ImageEvent]:
        """All that the broker has, partition by partition, from the start."""
        client, topic = {"bootstrap.servers": self.about["bootstrap"], "log_level": 0}, self.about["topic"]
        lies = extent(client, topic)
        n_records = sum(end - lies.first_offset[number] for number, end in lies.next_offset.items())
        found: list[TailRecord] = []

        def all_read() -> bool:
            found.extend(tail.poll(wait_s=0.2))
            return len(found) >= n_records

        with Tail(client, topic, start=lies.first_offset) as tail:
            wait_until(all_read)
        return [parse(record.value, record.headers, at_us=now_us()) for record in found]

    def point(self) -> Point | None:
        return self.index.get(TENANT, "new")

    def uploads(self) -> list[str]:
        return sorted(self.objects.keys(BUCKET, PLACES.uploads_of(TENANT, "new")))

    def apply(self, location: Location, version: int) -> None:
        """What a worker makes of the event that was posted."""
        found = self.objects.get(location, max_bytes=1 << 30)
        vector = HashQueryEmbedder().embed(found.data)
        etag = found.info.etag
        write = PutVector("new", version, vector, location, etag=etag, sha256="0", indexed_at_us=now_us())
        self.index.write(TENANT, [write]).result(20)

    def searchable(self) -> bool:
        hits = self.index.search(TENANT, like(HashQueryEmbedder().embed(picture(3, 0)))).hits
        return "new" in [hit.image_id for hit in hits]


@pytest.fixture
def world(kafka: _Kafka, unique: str, tmp_path: Path) -> Iterator[World]:
    names = TopicNames(prefix=f"{unique}.")
    create({"bootstrap.servers": kafka.bootstrap}, specs(names, partitions=2))
    (tmp_path / "objects").mkdir()
    with IndexProcess(tmp_path / "index", engine="edge") as process, closing(process.client(SPEC)) as index:
        index.spec()
        about = {
            "data": str(tmp_path / "objects"),
            "socket": str(process.socket),
            "bootstrap": kafka.bootstrap,
            "topic": names.lane(Lane.LIVE),
        }
        yield World(about, process, index, FolderStore(tmp_path / "objects"))


def post(api: MortalApi, version: int) -> httpx.Response:
    return api.http.post(IMAGES, params={"image_id": "new", "version": version}, content=picture(3, 0))


MOMENTS = ["before object", "after object", "after event", "after index"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_post_that_dies_between_its_steps_is_repeated(world: World, moment: str) -> None:
    """Object, event, note: whatever is there, what comes before it is there; the repetition makes it one post."""
    version = now_us()
    with world.api(moment) as api:
        with pytest.raises(httpx.TransportError):
            post(api, version)
        assert api.died() == -9
    n_stored, n_announced, n_noted = len(world.uploads()), len(world.events()), int(world.point() is not None)
    assert n_stored >= n_announced >= n_noted
    assert (n_stored, n_announced, n_noted) == {
        "before object": (0, 0, 0),
        "after object": (1, 0, 0),
        "after event": (1, 1, 0),
        "after index": (1, 1, 1),
    }[moment]
    with world.api() as api:
        answer = post(api, version)
    assert (answer.status_code, answer.json()["pending"]) == (202, True)
    location = Location(**answer.json()["location"])
    assert world.uploads() == [location.key]
    events = world.events()
    assert {(event.image_id, event.version, event.location) for event in events} == {("new", version, location)}
    stored = world.point()
    assert stored is not None
    assert stored.attempt is not None
    assert (stored.state, stored.attempt.state, stored.attempt.version) == (State.EMPTY, AttemptState.PENDING, version)
    world.apply(location, version)
    assert world.searchable()


DELETIONS = ["before event", "after event", "after index", "after removal"]


@pytest.mark.parametrize("moment", DELETIONS)
def test_a_delete_that_dies_between_its_steps_is_repeated(world: World, moment: str) -> None:
    """Event, tombstone, object: the picture is searchable or deleted, never half; the repetition ends it all."""
    with world.api() as api:
        posted = post(api, now_us()).json()
    world.apply(Location(**posted["location"]), posted["version"])
    with world.api(moment) as api:
        with pytest.raises(httpx.TransportError):
            api.http.delete(NEW)
        assert api.died() == -9
    deletes = [event for event in world.events() if event.type is EventType.DELETED]
    stored = world.point()
    assert stored is not None
    is_gone = stored.state is State.DELETED
    assert is_gone == (moment not in ("before event", "after event"))
    assert len(deletes) == (moment != "before event")
    assert len(world.uploads()) == (moment != "after removal")
    with world.api() as api:
        again = api.http.delete(NEW)
        assert (again.status_code, again.json()["search"]) == (202, "gone")
        assert api.http.get(f"{NEW}/thumbnail").status_code == 409
    assert world.uploads() == []
    assert list(world.objects.keys(PLACES.thumbnail_bucket, f"{TENANT}/")) == []
    with pytest.raises(ObjectMissingError):
        world.objects.head(Location(**posted["location"]))
    assert not world.searchable()


def test_an_index_that_is_down_delays_the_search_only(world: World) -> None:
    """A post is 202 without its note, a delete 202 with the search pending; both events are in the log."""
    world.process.kill()
    with world.api() as api:
        posted = post(api, now_us())
        assert (posted.status_code, posted.json()["pending"]) == (202, False)
        deleted = api.http.delete(NEW)
        assert (deleted.status_code, deleted.json()["search"]) == (202, "pending")
        assert api.http.get(NEW).status_code == 503
        assert [event.type for event in world.events()] == [EventType.CREATED, EventType.DELETED]
        world.process.start()
        assert api.http.delete(NEW, params={"version": now_us()}).json()["search"] == "gone"


def test_a_broker_that_is_down_is_503_and_changes_no_search(world: World) -> None:
    """Neither note nor tombstone comes before the event; what was searchable stays so."""
    with world.api() as api:
        posted = post(api, now_us()).json()
    world.apply(Location(**posted["location"]), posted["version"])
    with world.api(bootstrap="127.0.0.1:9") as api:
        for answer in (api.http.delete(NEW), post(api, now_us())):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unavailable")
            assert answer.headers["retry-after"]
    stored = world.point()
    assert stored is not None
    assert (stored.state, stored.attempt) == (State.INDEXED, None)
    assert world.searchable()
