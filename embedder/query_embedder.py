"""Vectors of query pictures for a process without a network: one child process does the work.

Nothing that somebody sent is decoded here. The child is started in the background, restarted when it
dies, and ends when this process does (its socket closes).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from embedder import query_embedder_wire as wire
from embedder.index.points import Vector
from embedder.index.protocol import CollectionSpec
from embedder.query_embedder_process import EmbeddingProcess, ProcessDiedError
from embedder.query_embedder_wire import Want
from embedder.vision_options import VisionOptions
from streams.errors import DependencyError, LookalikeError

COMMAND = (sys.executable, "-m", "embedder.query_embedder_child")


class QueueFullError(LookalikeError):
    """As many pictures as may wait are waiting: ask again in a moment. Nothing was done."""


@dataclass(frozen=True, slots=True)
class QueryEmbedderOptions:
    """`vision` is the worker's; `deadline_s` is for one picture, waiting included.

    `start_s` is how long the child may take to load its network (torch from a cold disk: 10 s).
    """

    vision: VisionOptions
    deadline_s: float = 10.0
    start_s: float = 120.0
    max_waiting: Mapping[Want, int] = field(
        default_factory=lambda: MappingProxyType({Want.VECTOR: 8, Want.THUMBNAIL: 64})
    )
    command: tuple[str, ...] = COMMAND

    def setup(self) -> wire.Setup:
        vision = self.vision
        return wire.Setup(
            model=vision.model,
            weights=None if vision.weights is None else str(vision.weights),
            weights_sha256=vision.weights_sha256,
            engine=vision.engine,
            preprocessing=vision.preprocessing,
            cache=None if vision.cache is None else str(vision.cache),
            max_pixels=vision.max_pixels,
            decode_timeout_s=vision.decode_timeout_s,
        )


class QueryEmbedder:
    """The parent's side. Thread-safe; every call blocks at most `deadline_s`."""

    def __init__(self, options: QueryEmbedderOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._child: EmbeddingProcess | None = None
        self._backoff = _Backoff(clock)
        self._waiting = dict.fromkeys(Want, 0)
        self._closed = False

    def start(self) -> None:
        """Start the child if there is none, and don't wait for it."""
        self._living()

    def close(self) -> None:
        """End the child; what waits fails with DependencyError."""
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def check(self) -> None:
        """DependencyError where no child is ready; starts one that is missing."""
        child = self._living()
        if child.hello.done():
            child.hello.result()
        else:
            raise DependencyError("embedder", "the embedding process is loading its network")

    def spec(self) -> CollectionSpec:
        """The collection that the vectors belong into. DependencyError where the child does not come up in time."""
        return self._ready(self._clock() + self._options.deadline_s).hello.result()

    def embed(self, data: bytes) -> Vector:
        """(dim,) float32, L2-normalised.

        Raises:
            EventError, RetryableError: the picture cannot be read, with the reason the worker would give.
            QueueFullError: ask again.
            TimeoutError: no answer within `deadline_s`.
            DependencyError: the child does not come up, or died twice over this picture.
        """
        return np.frombuffer(self._ask(Want.VECTOR, data), np.float32)

    def thumbnail(self, data: bytes) -> bytes:
        """An upright JPEG of at most 256 × 256 pixels. Raises as `embed`."""
        return self._ask(Want.THUMBNAIL, data)

    def _ask(self, want: Want, data: bytes) -> bytes:
        deadline = self._clock() + self._options.deadline_s
        with self._place(want):
            for _ in range(2):  # a child that dies takes along what others sent: each gets a second try
                child = self._ready(deadline)
                try:
                    return child.ask(want, data, deadline)
                except ProcessDiedError:
                    continue
        raise DependencyError("embedder", "the embedding process died twice while it had this picture")

    @contextmanager
    def _place(self, want: Want) -> Iterator[None]:
        """One of the places to wait in."""
        with self._lock:
            if self._waiting[want] >= self._options.max_waiting[want]:
                raise QueueFullError(f"{self._waiting[want]} pictures are waiting: ask again in a moment")
            self._waiting[want] += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting[want] -= 1

    def _ready(self, deadline: float) -> EmbeddingProcess:
        """A child that has loaded its network."""
        child = self._living()
        try:
            child.hello.result(timeout=max(0.0, deadline - self._clock()))
        except TimeoutError as exc:
            raise DependencyError("embedder", "the embedding process is still loading its network") from exc
        return child

    def _living(self) -> EmbeddingProcess:
        with self._lock:
            if self._closed:
                raise DependencyError("embedder", "the embedding process was stopped")
            child = self._child
            if child is not None and child.is_alive():
                return child
            if child is not None:
                self._child = None
                self._backoff.note(child.failed_to_start)
            self._backoff.check()
            self._child = child = EmbeddingProcess(
                self._options.command,
                self._options.setup(),
                start_s=self._options.start_s,
                send_s=self._options.deadline_s,
                clock=self._clock,
            )
            return child


class _Backoff:
    """A child that cannot start is not started again for every request: 1 s, then twice as long, up to 30 s."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._error: DependencyError | None = None
        self._delay_s = 0.0
        self._not_before = 0.0

    def note(self, error: DependencyError | None) -> None:
        """A child ended; `error` is why it never got ready, None where it had."""
        self._error = error
        self._delay_s = 0.0 if error is None else min(30.0, max(1.0, self._delay_s * 2))
        self._not_before = self._clock() + self._delay_s

    def check(self) -> None:
        """The last child's error, where it is too early for another one."""
        if self._error is not None and self._clock() < self._not_before:
            raise DependencyError(self._error.dependency, self._error.message)
