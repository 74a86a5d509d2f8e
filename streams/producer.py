"""Records into Kafka, confirmed: idempotent, acks=all, zstd. A record counts as sent when its callback says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as _Client

from streams.errors import DependencyError, RecordTooLargeError
from streams.event import Headers
from streams.threads import name_this_thread

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Before compression: a record that a topic of 1 MB took because it compresses well must be sent on as it is."""
OnAck = Callable[[DependencyError | None], None]
"""Called once per record, on the producer's own thread: None when the broker has it on all in-sync replicas."""


class Producer(Protocol):
    """Where the worker, the API and the command line put records."""

    def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, on_ack: OnAck) -> None:
        """Hand a record over. Blocks only while the local queue is full.

        The classic mistake is to count a record as sent when this returns: only `on_ack` says so.

        Raises:
            DependencyError: the client is beyond repair (fenced, not authorised); start a new process.
        """
        ...

    def flush(self, timeout_s: float) -> int:
        """Wait for all callbacks; returns how many records are still without one."""
        ...


class WatchedProducer(Producer, Protocol):
    """A producer that tells whether its broker still answers."""

    def silent_s(self) -> float:
        """For how long records have waited and none was acknowledged, in seconds; 0 where none waits.

        Asked now and then by one thread: it is exact to the time between two calls.
        """
        ...


class Silence:
    """Since when something waits and nothing moves: from how many wait and how many were done, asked repeatedly."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done = 0
        self._since: float | None = None

    def seconds(self, *, waiting: int, acked: int) -> float:
        """`acked` counts up from the start; seconds since the first call that saw no movement."""
        now = self._clock()
        if not waiting or acked != self._done or self._since is None:
            self._done, self._since = acked, now if waiting else None
        return 0.0 if self._since is None else now - self._since


class KafkaProducer:
    """The real one. One thread of its own serves delivery callbacks, so no caller has to poll."""

    def __init__(self, client: Mapping[str, Any], *, linger_ms: int = 2, message_timeout_ms: int = 0) -> None:
        """`message_timeout_ms` 0 waits for a broker for ever: what was accepted is never given up.

        Linger 2 ms: an idle event is not held back noticeably, a busy worker still fills batches.
        """
        self._fatal: DependencyError | None = None
        self._moved = threading.Condition()
        self._client = _Client(
            {
                **client,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "zstd",
                "linger.ms": linger_ms,
                "message.timeout.ms": message_timeout_ms,
                "message.max.bytes": MAX_RECORD_BYTES,
                "queue.buffering.max.messages": 50_000,
                "error_cb": self._on_error,
            }
        )
        self._closing = threading.Event()
        self._acked = 0
        self._silence = Silence()
        self._thread = threading.Thread(target=self._serve, name="acks", daemon=True)
        self._thread.start()

    def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, on_ack: OnAck) -> None:
        def delivered(error: KafkaError | None, _message: object) -> None:
            self._acked += 1  # here and not by what `poll` returns: that counts errors too, of which an outage has many
            on_ack(None if error is None else _translated(topic, error))

        while True:
            if self._fatal is not None:
                raise self._fatal
            try:
                self._client.produce(topic, value, key, headers=list(headers), on_delivery=delivered)
            except BufferError:  # the local queue is full: room comes with the next callbacks
                with self._moved:
                    self._moved.wait(0.1)
            except KafkaException as exc:
                refused = _translated(topic, exc.args[0])
                if not isinstance(refused, RecordTooLargeError):
                    raise refused from exc
                on_ack(refused)
                return
            else:
                return

    def flush(self, timeout_s: float) -> int:
        return int(self._client.flush(timeout_s))

    def silent_s(self) -> float:
        return self._silence.seconds(waiting=len(self._client), acked=self._acked)

    def close(self, timeout_s: float = 10.0) -> int:
        """Flush and stop; returns how many records were given up."""
        left = self.flush(timeout_s)
        self._closing.set()
        self._thread.join()
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        name_this_thread("acks")
        while not self._closing.is_set():
            if self._client.poll(0.1):
                with self._moved:
                    self._moved.notify_all()

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka reconnects by itself; only what it calls fatal ends this client."""
        if error.fatal():
            self._fatal = DependencyError("broker", f"the producer cannot go on: {error.str()}")


def _translated(topic: str, error: KafkaError) -> DependencyError:
    kind = RecordTooLargeError if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else DependencyError
    return kind("broker", f"{topic}: {error.str()}")
