"""No tenant learns of another: every answer is that of a world in which the other one never was.

The attempts are made up from the published document (`tests/leaks.py`) and from the protocols' signatures:
a new operation or call is attacked by itself, and one that nobody knows how to attack fails here.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedder.index.edge.shard import EdgeIndex
from embedder.index.exact import ExactIndex
from embedder.index.filters import AllOf, AnyOf, Filter, HasTag, Is, Not, Within
from embedder.index.points import Attempt, AttemptState, Bury, Note, PutVector, Refresh, State, Write
from embedder.index.protocol import Searcher, Writer
from embedder.index.query import Query, like
from embedder.objects.folder import FolderStore
from streams.errors import EventError, LookalikeError
from streams.event import Location
from tests.api_rig import BUCKET, SPEC, VERSION, HashQueryEmbedder, picture
from tests.leaks import OURS, THEIRS, US, VICTIM, Attempts, Ring, World, client

MIN_ATTEMPTS = 200


async def _cursors(world: World, http: httpx.AsyncClient) -> list[str]:
    """Cursors that the victim was given, for each kind of page."""
    key = {"Authorization": f"Bearer {world.ring.texts[VICTIM]}"}
    tenant = f"/v1/tenants/{VICTIM}"
    pages = [
        await http.get(f"{tenant}/images", params={"limit": 1}, headers=key),
        await http.get(f"{tenant}/images/{THEIRS}/similar", params={"limit": 1}, headers=key),
        await http.post(f"{tenant}/search", json={"positive": [THEIRS], "limit": 1}, headers=key),
    ]
    found = [page.json()["next_cursor"] for page in pages]
    assert all(found)
    return found


def test_nothing_comes_through_over_http() -> None:
    """At least 200 attempts on all operations; each answer is the same with and without the victim."""
    ring = Ring()
    there, never = World(has_victim=True, ring=ring), World(has_victim=False, ring=ring)
    before = there.belongings(VICTIM)

    async def run() -> tuple[int, list[str]]:
        leaks, operations, n_attempts = [], set(), 0
        async with client(there) as http, client(never) as control:
            document = (await http.get("/openapi.json")).json()
            attempts = Attempts(document, there, await _cursors(there, http))
            for attempt in attempts.all():
                n_attempts += 1
                operations.add(attempt.what.partition(":")[0])
                got, expected = await attempt.ask(http), await attempt.ask(control)
                assert got[0] < 500, (attempt, got)
                if got != expected:
                    leaks.append(f"{attempt.what} {attempt.method} {attempt.path}: {got} instead of {expected}")
        described = {
            o["operationId"] for path, item in document["paths"].items() for o in item.values() if "{tenant}" in path
        }
        assert described <= operations
        return n_attempts, leaks

    n_attempts, leaks = asyncio.run(run())
    assert leaks == []
    assert n_attempts >= MIN_ATTEMPTS
    assert there.belongings(VICTIM) == before
    assert there.announced() == {US}


def test_the_suite_sees_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that forgets its tenant is found out, by more than one attempt."""
    ring = Ring()
    there, never = World(has_victim=True, ring=ring), World(has_victim=False, ring=ring)
    whole = there.rig.index.search

    def forgetful(tenant_id: str, query: Query) -> Any:
        return whole(VICTIM if not query.named else tenant_id, query)

    monkeypatch.setattr(there.rig.index, "search", forgetful)

    async def run() -> int:
        n_leaks = 0
        async with client(there) as http, client(never) as control:
            attempts = Attempts((await http.get("/openapi.json")).json(), there, ["kgo"])
            for attempt in attempts.all():
                if attempt.what.startswith("search"):
                    n_leaks += await attempt.ask(http) != await attempt.ask(control)
        return n_leaks

    assert asyncio.run(run()) > 1


# ---- the protocols -------------------------------------------------------------------------------


def _vector(family: int, member: int) -> Any:
    return HashQueryEmbedder().embed(picture(family, member))


def _put(index: Any, tenant_id: str, name: str, family: int) -> None:
    writes: list[Write] = [
        PutVector(
            f"{name}-{n}",
            VERSION,
            _vector(family, n),
            Location(BUCKET, f"{tenant_id}/{name}-{n}.jpg"),
            etag=f"{name}-{n}",
            sha256="0",
            indexed_at_us=VERSION,
            tags=("shared", f"tag-{name}"),
            attributes={"codename": f"code-{name}"},
        )
        for n in range(3)
    ]
    writes.append(Bury(f"{name}-gone", VERSION, VERSION))
    index.write_now(tenant_id, writes)


CONDITIONS: list[Filter] = [
    HasTag(("tag-secret",)),
    Is("codename", ("code-secret",)),
    Is("tenant_id", (VICTIM,)),
    Within("indexed_at", gte=0),
    Not(HasTag(("tag-mine",))),
    AnyOf((HasTag(("tag-secret",)), Within("indexed_at", gte=0))),
    Not(AllOf((HasTag(("shared",)), Is("codename", ("code-mine",))))),
]
IDS = [THEIRS, "secret-gone", f"{VICTIM}/{THEIRS}", f"../{VICTIM}/{THEIRS}"]
QUERIES = [
    *(like(one) for one in IDS),
    *(like(OURS, one) for one in IDS),
    *(Query((OURS,), negative=(one,)) for one in IDS),
    like(_vector(7, 0), limit=100),
    *(Query((_vector(7, 0),), filter=condition, limit=100, with_points=True) for condition in CONDITIONS),
    Query((_vector(7, 0),), score_threshold=-1.0, limit=100),
]
STATES: list[tuple[State, ...]] = [(), (State.DELETED,), tuple(State)]
PLACE = Location(BUCKET, f"{VICTIM}/{THEIRS}.jpg")
NOTE = Note(THEIRS, Attempt(VERSION + 9, AttemptState.PENDING))
WRITES: list[Write] = [
    PutVector(THEIRS, VERSION + 9, _vector(1, 1), PLACE, etag="mine", sha256="1", indexed_at_us=VERSION),
    Refresh(THEIRS, VERSION + 9, PLACE, "secret-0"),
    NOTE,
    Bury(THEIRS, VERSION + 9, VERSION),
]
VALUES: dict[str, list[Any]] = {
    "image_id": IDS,
    "image_ids": [IDS],
    "query": QUERIES,
    "queries": [QUERIES[:8], QUERIES[8:]],
    "field": ["tags", "codename", "tenant_id", "image_id"],
    "filter": [None, *CONDITIONS],
    "cursor": [None, "asecret-0", "a"],
    "states": STATES,
    "limit": [100],
    "writes": [[one] for one in WRITES],
}
"""What the victim has, by the names of the protocols' parameters. A new parameter needs a line here."""
ABOUT_NO_TENANT = {"spec"}


def _calls(protocol: type) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every call of a protocol with each of its values being the victim's, the others as few as possible."""
    for name, method in inspect.getmembers(protocol, inspect.isfunction):
        if name.startswith("_") or name in ABOUT_NO_TENANT:
            continue
        shown = [one for one in inspect.signature(method).parameters if one != "self"]
        assert shown[0] == "tenant_id", f"{name} takes no tenant first"
        first = {one: VALUES[one][0] for one in shown[1:]}
        yield name, first
        for one in shown[1:]:
            for value in VALUES[one][1:]:
                yield name, {**first, one: value}


def _told(index: Any, name: str, arguments: dict[str, Any]) -> Any:
    """What a call answers, or with which error; a write's receipt without its time."""
    shape = inspect.signature(getattr(Searcher, name, None) or getattr(Writer, name)).parameters
    positional = [v for k, v in arguments.items() if shape[k].kind is not inspect.Parameter.KEYWORD_ONLY]
    named = {k: v for k, v in arguments.items() if shape[k].kind is inspect.Parameter.KEYWORD_ONLY}
    call: Callable[..., Any] = index.write_now if name == "write" else getattr(index, name)
    try:
        answer = call(US, *positional, **named)
    except (LookalikeError, ValueError) as exc:
        return type(exc), str(exc)
    return [_plain(one) for one in answer] if name == "search_batch" else _plain(answer)


def _plain(answer: Any) -> Any:
    return (type(answer), str(answer)) if isinstance(answer, Exception) else answer


def _indexes(engine: str, folder: Path) -> tuple[Any, Any]:
    if engine == "exact":
        return ExactIndex(SPEC), ExactIndex(SPEC)
    return EdgeIndex(SPEC, folder / "there"), EdgeIndex(SPEC, folder / "never")


@pytest.mark.parametrize("engine", ["exact", "edge"])
def test_nothing_comes_through_the_protocols(engine: str, tmp_path: Path) -> None:
    """Every call of Searcher and Writer, with the victim's ids, vectors, filters, fields and cursors."""
    there, never = _indexes(engine, tmp_path)
    _put(there, VICTIM, "secret", 7)
    for index in (there, never):
        _put(index, US, "mine", 0)
    before = there.list(VICTIM, limit=100).points, there.search(VICTIM, like(THEIRS)).hits
    n_attempts = 0
    for protocol in (Searcher, Writer):
        for name, arguments in _calls(protocol):
            n_attempts += 1
            told, expected = _told(there, name, arguments), _told(never, name, arguments)
            assert told == expected, (name, arguments)
    assert (there.list(VICTIM, limit=100).points, there.search(VICTIM, like(THEIRS)).hits) == before
    assert n_attempts >= 50
    for index in (there, never):
        index.close()


@pytest.mark.parametrize("key", [f"{US}/door/secret-0.jpg", f"{US}/window.jpg", f"{US}/door", f"{US}/up/{VICTIM}/x"])
def test_a_link_leads_to_no_other_tenant(key: str, tmp_path: Path) -> None:
    """A link in our folder to another tenant's is forbidden, whether or not anything is there."""
    told = []
    for has_victim in (True, False):
        root = tmp_path / str(has_victim)
        (root / BUCKET / US).mkdir(parents=True)
        store = FolderStore(root)
        if has_victim:
            store.put(BUCKET, f"{VICTIM}/secret-0.jpg", picture(7, 0))
        home = root / BUCKET / US
        (home / "door").symlink_to(f"../{VICTIM}")
        (home / "window.jpg").symlink_to(f"../{VICTIM}/secret-0.jpg")
        (home / "up").symlink_to("..")
        for read in (store.head, lambda at, store=store: store.get(at, max_bytes=1 << 20)):
            with pytest.raises(EventError) as caught:
                read(Location(BUCKET, key))
            told.append((caught.value.reason, caught.value.message))
        assert list(store.keys(BUCKET, f"{US}/")) == []
    assert len(set(told)) == 1
