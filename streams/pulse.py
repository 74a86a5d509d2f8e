"""The live view per tenant: a small Faust app that reads what became of events. The only file that knows Faust.

It is disposable and never in the data's path (docs/faust.md says why, with figures): nothing is lost when
it dies, because at every start it reads the last 15 minutes again. Faust 0.15.3 acknowledges an event also
where its processing failed, so the rules here leave it no failure to acknowledge: records are decoded by
us inside `try`, one coroutine reads each topic, and whatever else happens ends the process with 70 before
anything is acknowledged. Whoever supervises it starts a new one, with a group of its own.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import structlog

from streams.errors import DependencyError
from streams.event import TENANT_ID
from streams.onward import DEAD_PREFIX
from streams.report.outcomes import decode
from streams.settings import KafkaSettings
from streams.starts import Starts, begin_group, starts_since
from streams.tenant_view import UNKNOWN, WINDOW_S, TenantView
from streams.topics import TopicNames

log = structlog.get_logger(__name__)

EXIT_REBUILD = 70
"""The view can't be trusted any more: whoever supervises this process starts it again, and it reads anew."""
STALE_S = 120.0
"""Behind the log for so long without a record: the client is stuck (it has happened after a broker's restart)."""
SESSION_S = 10.0
METADATA_MAX_AGE_MS = 30_000
"""A partition that was added is read within half a minute."""


class _Message(Protocol):
    partition: int
    offset: int
    timestamp: float
    headers: Any


class Positions:
    """Up to where each partition was read. A record below is a repeat; one above means that some were skipped."""

    def __init__(self, starts: Mapping[str, Starts], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`starts` gives, by topic, where reading begins and where the topic ended by then."""
        self._clock = clock
        self._lock = threading.Lock()
        self._next = {(topic, number): at for topic, one in starts.items() for number, at in one.begin.items()}
        self._goal = {(topic, number): at for topic, one in starts.items() for number, at in one.end.items()}
        self._moved_at = clock()
        self.repeated = 0

    def admit(self, topic: str, partition: int, offset: int) -> bool:
        """Whether this record is the next one; False for a repeat.

        Raises:
            LookupError: records were skipped: the view lacks them.
        """
        with self._lock:
            wanted = self._next.get((topic, partition), 0)  # a partition that was added later begins at 0
            if offset < wanted:
                self.repeated += 1
                return False
            if offset > wanted:
                raise LookupError(f"{topic}/{partition}: {offset - wanted} records before {offset} never came")
            self._next[topic, partition] = offset + 1
            self._moved_at = self._clock()
            return True

    def complete(self) -> bool:
        """Whether everything that was there at the start has been read."""
        with self._lock:
            return all(self._next.get(at, 0) >= end for at, end in self._goal.items())

    def behind(self, ends: Mapping[tuple[str, int], int]) -> int:
        """How many records of `ends` (next offsets) were not read yet."""
        with self._lock:
            return sum(max(0, end - self._next.get(at, 0)) for at, end in ends.items())

    def still_s(self) -> float:
        """Seconds since the last record."""
        with self._lock:
            return self._clock() - self._moved_at

    def as_json(self) -> dict[str, int]:
        """The next offset of every partition."""
        with self._lock:
            return {f"{topic}/{number}": offset for (topic, number), offset in sorted(self._next.items())}


def end_process(error: BaseException) -> None:
    """Fail-stop: at once, before Faust acknowledges what was not done."""
    log.critical("pulse ends: its view has to be built anew", error=f"{type(error).__name__}: {error}")
    os._exit(EXIT_REBUILD)


class FaustView:
    """Feeds a :class:`TenantView` from `images.outcomes` and `images.dead`. :meth:`run` once, in an event loop."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        view: TenantView,
        group_id: str | None = None,
        fail: Callable[[BaseException], None] = end_process,
    ) -> None:
        """Looks up where 15 minutes ago lies in the log, and makes a group that begins there. Blocks.

        `group_id` is by default one that nobody else has. `fail` must not return to Faust (tests look at what
        it was told).

        Raises:
            DependencyError: the broker does not answer.
            ConfigError: a topic is missing.
        """
        self._settings = settings
        self._names: TopicNames = settings.topic_names()
        self._view = view
        self._fail = fail
        self._stopping = False
        self.group_id = group_id or f"lookalike-pulse-{uuid.uuid4().hex[:12]}"
        client = {**settings.client_config(), "log_level": 0}
        at_ms = int((time.time() - WINDOW_S) * 1000)
        starts = {topic: starts_since(client, topic, at_ms) for topic in (self._names.outcomes, self._names.dead)}
        begin_group(client, self.group_id, starts)
        self.positions = Positions(starts)
        self.unreadable = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set, then leave the group."""
        from faust.contrib.asgi import faust_app_running  # noqa: PLC0415 - takes half a second to load

        app = self._app()
        async with faust_app_running(app, stop_timeout=SESSION_S):
            stopped = asyncio.ensure_future(app.wait_until_stopped())
            asked = asyncio.ensure_future(stop.wait())
            await asyncio.wait((stopped, asked), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                self._fail(DependencyError("broker", "Faust stopped by itself"))
            self._stopping = True
            for task in (stopped, asked):
                task.cancel()

    def _app(self) -> Any:
        import faust  # noqa: PLC0415 - as above

        home = Path(tempfile.gettempdir()) / "lookalike-pulse"  # Faust makes it; no table ever writes there
        app = faust.App(
            self.group_id,
            broker=[f"kafka://{one}" for one in str(self._settings.bootstrap).split(",")],
            broker_credentials=_credentials(self._settings),
            autodiscover=False,
            datadir=home,
            key_serializer="raw",
            value_serializer="raw",
            store="memory://",
            topic_disable_leader=True,
            topic_allow_declare=False,
            web_enabled=False,
            broker_session_timeout=SESSION_S,
            broker_heartbeat_interval=3.0,
            broker_rebalance_timeout=30.0,
            broker_commit_interval=1.0,
            consumer_auto_offset_reset="earliest",
            consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
            stream_wait_empty=True,
            stream_buffer_maxsize=256,
            worker_redirect_stdouts=False,
        )
        for name, record in ((self._names.outcomes, self._outcome), (self._names.dead, self._dead_letter)):
            topic = app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
            app.agent(topic, name=f"read {name}", concurrency=1)(self._reader(name, record))
        return app

    def _reader(self, topic: str, record: Callable[[_Message, bytes | None], None]) -> Callable[[Any], Any]:
        async def read(stream: Any) -> None:
            events: AsyncIterator[Any] = stream.events()
            try:
                async for event in events:
                    message = event.message
                    if self.positions.admit(topic, message.partition, message.offset):
                        record(message, event.value)
            except BaseException as exc:
                if self._stopping:
                    raise
                self._fail(exc)

        return read

    def _outcome(self, message: _Message, value: bytes | None) -> None:
        at_ms = round(message.timestamp * 1000)
        try:
            outcome = decode(value or b"")
        except ValueError:  # somebody else's record, or of a later version: it is one, whatever it says
            self.unreadable += 1
            return
        reason = None if outcome.reason is None else outcome.reason.value
        self._view.record_outcome(at_ms, _tenant(outcome.tenant_id), outcome.state, reason, outcome.freshness_s)

    def _dead_letter(self, message: _Message, _value: bytes | None) -> None:
        headers = _headers(message.headers)
        key = getattr(message, "key", None) or b""
        tenant_id = _tenant(key.partition(b"/")[0].decode("ascii", "replace"))
        reason = headers.get(f"{DEAD_PREFIX}reason", b"").decode("ascii", "replace")[:64]
        self._view.record_dead_letter(round(message.timestamp * 1000), tenant_id, reason or UNKNOWN)


def _tenant(tenant_id: str | None) -> str | None:
    """None for what is no tenant's name: keys of poison may be anything, and become a label."""
    return tenant_id if tenant_id is not None and TENANT_ID.match(tenant_id) else None


def _headers(found: Any) -> dict[str, bytes]:
    pairs = found.items() if isinstance(found, Mapping) else found or ()
    return {name: value or b"" for name, value in pairs}


def _credentials(settings: KafkaSettings) -> Any:
    """How Faust is let in: the same settings that librdkafka gets."""
    from faust.auth import SASLCredentials, SSLCredentials  # noqa: PLC0415 - loads all of Faust

    context = None
    if settings.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.ssl_ca_file)
        if settings.ssl_certificate_file is not None:
            password = settings.ssl_key_password
            context.load_cert_chain(
                settings.ssl_certificate_file,
                settings.ssl_key_file,
                None if password is None else password.get_secret_value(),
            )
    if settings.security_protocol.startswith("SASL"):
        assert settings.sasl_password is not None
        return SASLCredentials(
            mechanism=settings.sasl_mechanism,
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context=context)
