"""The API over an index, objects and an embedder in memory, and a few pictures in two families."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette

from embedder.index.exact import ExactIndex
from embedder.index.fields import parse_fields
from embedder.index.points import PutVector, Vector
from embedder.index.protocol import CollectionSpec
from embedder.models.hash_engine import HashEngine
from embedder.objects.grants import Grants
from embedder.objects.memory import MemoryObjects
from embedder.objects.places import Places
from query_api.app import create_app
from query_api.deps import Deps, Limits
from query_api.protocol import PatientProtocol
from query_api.server import address_of, bind, server_of
from streams.errors import DependencyError, EventError, Reason
from streams.event import Attribute, Headers, Location
from streams.memory import MemoryLog
from streams.producer import OnAck
from tests.waiting import wait_until

BUCKET = "pictures"
TENANT = "acme"
SPEC = CollectionSpec("hash", "test", 64)
FIELDS = parse_fields(["shelf:number", "taken_at:time"])
VERSION = 1_700_000_000_000_000
TOPIC = "images.live"
PLACES = Places(BUCKET, "thumbnails")
BASE_URL = "http://127.0.0.1:8080"


@dataclass
class HashQueryEmbedder:
    """Pictures are decoded right here, and the network is a :class:`HashEngine`.

    `faults` are raised by the next calls, in order; where `hold` is set, calls wait for it.
    """

    vectors_of: CollectionSpec = SPEC
    faults: deque[Exception] = field(default_factory=deque)
    hold: threading.Event | None = None
    n_thumbnails: int = 0
    n_held: int = 0
    running: bool = False
    _engine: HashEngine = field(default_factory=lambda: HashEngine(dim=SPEC.dim))

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False

    def check(self) -> None:
        self._fail()

    def spec(self) -> CollectionSpec:
        return self.vectors_of

    def embed(self, data: bytes) -> Vector:
        self._fail()
        pixels = np.asarray(self._open(data).convert("RGB").resize((32, 32)), np.float16)
        vector: Vector = self._engine.embed(pixels[np.newaxis])[0]
        return vector

    def thumbnail(self, data: bytes) -> bytes:
        self._fail()
        self.n_thumbnails += 1
        image = self._open(data).convert("RGB")
        image.thumbnail((256, 256))
        return jpeg(image)

    def _open(self, data: bytes) -> Image.Image:
        try:
            return Image.open(io.BytesIO(data))
        except UnidentifiedImageError as exc:
            raise EventError(Reason.IMAGE_UNREADABLE, "not a picture") from exc

    def _fail(self) -> None:
        if self.hold is not None:
            self.n_held += 1
            assert self.hold.wait(30), "the test never let go"
        if self.faults:
            raise self.faults.popleft()


def jpeg(image: Image.Image) -> bytes:
    """The bytes of a JPEG file."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def picture(family: int, member: int, *, size: tuple[int, int] = (320, 240)) -> bytes:
    """One of a family of coloured checks, each member a little brighter than the one before."""
    rng = np.random.default_rng(family)
    cells = rng.integers(0, 200, (6, 8, 3)) + 6 * member
    return jpeg(Image.fromarray(cells.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


class PromptProducer:
    """The log in memory, which confirms at once; `faults` are what the next records are answered with."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.faults: deque[DependencyError] = deque()

    def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, on_ack: OnAck) -> None:
        if self.faults:
            on_ack(self.faults.popleft())
            return
        self._log.append(topic, key=key, value=value, headers=headers)
        on_ack(None)

    def flush(self, timeout_s: float) -> int:
        return 0


class RecordingIndex:
    """An index that notes what it is asked by the names of its calls, and then answers as the one below it."""

    def __init__(self, index: ExactIndex) -> None:
        self._index = index
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._index, name)

        def noted(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            return call(*args, **options)

        return noted


@dataclass
class Rig:
    """Everything below the API, where tests can reach it."""

    index: ExactIndex = field(default_factory=lambda: ExactIndex(replace(SPEC, fields=FIELDS)))
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    embedder: HashQueryEmbedder = field(default_factory=HashQueryEmbedder)
    log: MemoryLog = field(default_factory=MemoryLog)

    def deps(self, *, limits: Limits | None = None) -> Deps:
        return Deps(
            searcher=self.index,
            writer=self.index,
            producer=PromptProducer(self.log),
            topic=TOPIC,
            places=PLACES,
            objects=self.objects,
            grants=Grants([BUCKET]),
            embedder=self.embedder,
            default_tenant=TENANT,
            limits=limits or Limits(),
        )

    def app(self, *, limits: Limits | None = None) -> Starlette:
        return create_app(self.deps(limits=limits))

    def add(
        self,
        image_id: str,
        data: bytes,
        *,
        tenant_id: str = TENANT,
        key: str | None = None,
        tags: tuple[str, ...] = ("red",),
        attributes: Mapping[str, Attribute] | None = None,
        version: int = VERSION,
        put: bool = True,
    ) -> None:
        """A picture that was published and indexed; without `put` its object is there already."""
        location = Location(BUCKET, key or f"{tenant_id}/{image_id}.jpg")
        info = self.objects.put(location.bucket, location.key, data) if put else self.objects.head(location)
        write = PutVector(
            image_id=image_id,
            version=version,
            vector=self.embedder.embed(data),
            location=location,
            etag=info.etag,
            sha256=hashlib.sha256(data).hexdigest(),
            indexed_at_us=VERSION,
            engine="hash",
            tags=tags,
            attributes={"shelf": 3} if attributes is None else attributes,
            width_px=320,
            height_px=240,
        )
        self.index.write(tenant_id, [write]).result()


def filled(n_families: int = 3, n_members: int = 4) -> Rig:
    """A rig whose tenant has `n_families` × `n_members` pictures, ``f0-m0`` and so on."""
    rig = Rig()
    for family in range(n_families):
        for member in range(n_members):
            rig.add(f"f{family}-m{member}", picture(family, member))
    return rig


def client_of(app: Starlette) -> httpx.AsyncClient:
    """A client that calls the app in this process; what the app raises becomes the 500 that a caller would see."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=BASE_URL)


def ask(app: Starlette, method: str, path: str, **options: Any) -> httpx.Response:
    """One request to the app, started and stopped around it."""

    async def run() -> httpx.Response:
        async with app.router.lifespan_context(app), client_of(app) as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


def get(app: Starlette, path: str, **options: Any) -> httpx.Response:
    """One GET."""
    return ask(app, "GET", path, **options)


@contextmanager
def serving(app: Starlette, *, protocol: type[PatientProtocol] = PatientProtocol) -> Iterator[str]:
    """The app behind a real server in a thread; gives its address."""
    with bind("127.0.0.1", 0) as listening:
        server = server_of(app, protocol=protocol)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield address_of(listening)
        finally:
            server.should_exit = True
            thread.join()


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The one error body, checked for its shape."""
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"code", "message", "field", "request_id"}
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    return error


async def until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Let the event loop run until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)
