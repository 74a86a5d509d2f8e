"""The worker, read top to bottom: poll → lookup → fetch and decode → embed → write → outcome → offset.

Every stage is one function of one event with a queue before it; the queues are bounded together, by
the window of :class:`~embedder.stages.intake.Window`. The poll thread does nothing but poll, so no
stage can make the group believe that this worker is dead. The network runs in the calling thread,
which should be the process's main thread (docs/performance.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from embedder.index.protocol import CollectionSpec, Writer
from embedder.metrics import WorkerMetrics
from embedder.models.protocol import Engine
from embedder.objects.grants import Grants
from embedder.objects.protocol import ObjectStore
from embedder.stages.breaker import PROBE_EVERY_S, DeadLetterBreaker
from embedder.stages.embed import Embed
from embedder.stages.fetch import Decoder, Fetch
from embedder.stages.intake import Intake, paused_gauge
from embedder.stages.lookup import Lookup
from embedder.stages.outages import Outages, StoppedError
from embedder.stages.report import Report
from embedder.stages.window import Window
from embedder.stages.work import Work, WorkQueue
from embedder.stages.write import IndexWrite
from embedder.verdict import RetryPolicy
from streams.consume.fairness import LiveShares
from streams.consume.retry import RetrySteps
from streams.consume.source import Source
from streams.errors import DependencyError
from streams.producer import WatchedProducer
from streams.report.dead_letters import DeadLetters
from streams.report.outcomes import Outcomes
from streams.report.retries import Retries
from streams.report.shunts import Shunts
from streams.threads import name_this_thread
from streams.topics import Lane, TopicNames

log = structlog.get_logger(__name__)


WAITING_BATCHES = 16
"""Of decoded pictures before the network: 5 MB at one picture a batch. Their queue is fair as well, so a tenant's
picture waits for the batch that is being embedded and for none of those that were decoded before it."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works. Times in seconds, sizes in bytes."""

    worker_id: str
    fetch_threads: int = 2
    """One per decode child: more threads would only wait for one."""
    max_batch: int = 4
    max_in_flight: int = 1024
    max_in_flight_bytes: int = 64 * 1024 * 1024
    max_image_bytes: int = 64 * 1024 * 1024
    tenant_live_share: float = 0.5
    shunt_after_s: float = 0.25
    dead_letter_limit: int = 50
    breaker_probe_s: float = PROBE_EVERY_S
    drain_s: float = 12.0
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    retry: RetrySteps = field(default_factory=RetrySteps.of)


class Worker:
    """One worker process's pipeline. :meth:`run` once."""

    def __init__(
        self,
        *,
        source: Source,
        producer: WatchedProducer,
        index: Writer,
        objects: ObjectStore,
        grants: Grants,
        decoder: Decoder,
        engine: Engine,
        spec: CollectionSpec,
        names: TopicNames,
        metrics: WorkerMetrics,
        options: WorkerOptions,
        stop: threading.Event,
        watch: Callable[[float], None] = lambda _oldest_s: None,
    ) -> None:
        """`stop` asks the worker to drain and end; the worker sets it itself when a stage breaks.

        `watch` is called about four times a second, from the poll thread, with the age of the oldest
        event in flight in seconds; 0 while a dependency is down, because waiting is right then.
        """
        self._source = source
        self._producer = producer
        self._options = options
        self._stop = stop
        self._stopping = threading.Event()
        self._left = 0
        self._crashed: BaseException | None = None
        self._metrics = metrics
        self._watch = watch
        self._window = Window(max_events=options.max_in_flight, max_bytes=options.max_in_flight_bytes)
        self._shares = LiveShares(share=options.tenant_live_share, after_s=options.shunt_after_s)
        self._outages = Outages(stopping=self._stopping, gauge=paused_gauge(metrics))
        self._lookup, self._write = WorkQueue(self._done), WorkQueue(self._done)
        self._fetch, self._embed = WorkQueue(self._done, fair=True), WorkQueue(self._done, fair=True)
        self._breaker = DeadLetterBreaker(
            limit=options.dead_letter_limit, probe_every_s=options.breaker_probe_s, on_change=self._on_breaker
        )
        self._report = Report(
            outcomes=Outcomes(producer, names.outcomes),
            retries=Retries(producer, names, options.retry, collection=spec.name),
            dead_letters=DeadLetters(producer, names.dead),
            breaker=self._breaker,
            metrics=metrics,
            policy=options.policy,
            collection=spec.name,
            engine=engine.name,
            worker=options.worker_id,
            lookup=self._lookup,
            write=self._write,
            queue_of=self._queue_before,
            done=self._done,
            crash=self._crash,
        )
        self._shunts = Shunts(producer, names, collection=spec.name, on_moved=metrics.shunted.inc, crash=self._crash)
        self._collection = spec.name
        self._stages(index, objects, grants, decoder, engine, metrics)
        metrics.build_info.labels(spec.model_id, engine.name, spec.name).set(1)

    def _stages(
        self,
        index: Writer,
        objects: ObjectStore,
        grants: Grants,
        decoder: Decoder,
        engine: Engine,
        metrics: WorkerMetrics,
    ) -> None:
        report, options = self._report, self._options
        self._intake = Intake(
            source=self._source,
            grants=grants,
            window=self._window,
            outages=self._outages,
            shares=self._shares,
            shunts=self._shunts,
            collection=self._collection,
            lookup=self._lookup,
            metrics=metrics,
            fail=report.fail,
            tend=self._tend,
        )
        self._lookup_stage = Lookup(
            queue=self._lookup,
            index=index,
            outages=self._outages,
            fetch=self._fetch,
            write=self._write,
            report=report.outcome,
            give_up=report.give_up,
        )
        self._fetch_stage = Fetch(
            queue=self._fetch,
            objects=objects,
            decoder=decoder,
            outages=self._outages,
            embed=self._embed,
            max_bytes=options.max_image_bytes,
            max_waiting=WAITING_BATCHES * options.max_batch,
            report=report.outcome,
            fail=report.fail,
        )
        self._embed_stage = Embed(
            queue=self._embed,
            engine=engine,
            write=self._write,
            max_batch=options.max_batch,
            decoding=lambda: self._fetch_stage.decoding,
            fail=report.fail,
            on_batch=metrics.batch_size.observe,
        )
        self._write_stage = IndexWrite(
            queue=self._write,
            index=index,
            outages=self._outages,
            window=self._window,
            lookup=self._lookup,
            report=report.outcome,
            fail=report.fail,
        )

    def run(self) -> int:
        """Work until asked to stop, then drain. Returns how many events stayed unfinished (they come again).

        Raises:
            BaseException: what ended the worker, after the other stages were stopped.
        """
        stages = [
            self._thread("lookup", self._lookup_stage.run),
            self._thread("write", self._write_stage.run),
            *(self._thread(f"fetch-{n}", self._fetch_stage.run) for n in range(self._options.fetch_threads)),
        ]
        poll = self._thread("poll", self._poll)
        self._guarded(self._embed_stage.run)  # in this thread: see the module's docstring
        poll.join()
        for stage in stages:
            stage.join()
        self._producer.flush(5.0)
        if self._crashed is not None:
            raise self._crashed
        return self._left

    def _poll(self) -> None:
        """Poll until asked to stop, drain, commit, leave the group; then let the stages end."""
        try:
            self._intake.run(self._stop)
            self._left = self._source.close(0.0 if self._crashed or self._outages.any else self._options.drain_s)
        finally:
            self._stopping.set()
            for queue in (self._lookup, self._fetch, self._embed, self._write):
                queue.close()

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        def named() -> None:
            name_this_thread(name)
            self._guarded(target)

        thread = threading.Thread(target=named, name=name, daemon=True)
        thread.start()
        return thread

    def _guarded(self, target: Callable[[], None]) -> None:
        """A stage that ends unexpectedly ends the worker: half a pipeline would only look alive."""
        try:
            target()
        except StoppedError:
            log.info("stopped while a dependency was down", causes=self._outages.causes())
        except BaseException as exc:  # noqa: BLE001 - the process's loop ends here: `run` raises it
            self._crash(exc)

    def _crash(self, error: BaseException) -> None:
        if self._crashed is None:
            self._crashed = error
            log.critical("worker ends", error=f"{type(error).__name__}: {error}")
        self._stop.set()

    def _done(self, work: Work) -> None:
        """This event has left the worker."""
        delivery = work.delivery
        self._window.release(handed_over=work.handed_over, bulk=delivery.lane is Lane.BULK, n_bytes=delivery.size_bytes)
        if work.counted_live:
            self._shares.leave(work.known_event.tenant_id)

    def _tend(self, oldest_s: float) -> None:
        """Four times a second, on the poll thread."""
        self._outages.hear_broker(self._producer.silent_s())
        self._report.try_held_again()
        self._watch(0.0 if self._outages.any else oldest_s)

    def _on_breaker(self, opened: bool) -> None:
        self._metrics.breaker.set(int(opened))
        if opened:
            self._outages.down(DependencyError("dead_letters", "almost everything fails: held, not dead-lettered"))
        else:
            self._outages.up("dead_letters")

    @property
    def ready(self) -> bool:
        """Whether this worker takes new events: no dependency is down and it is not stopping."""
        return not (self._outages.any or self._stop.is_set())

    @property
    def paused_by(self) -> list[str]:
        """The dependencies that are down, `dead_letters` for the open breaker."""
        return self._outages.causes()

    def _queue_before(self, stage: str) -> WorkQueue:
        """Where a try that failed in `stage` starts again; its bytes are gone after the decoder."""
        return {"fetch": self._fetch, "decode": self._fetch, "embed": self._embed, "write": self._write}[stage]
