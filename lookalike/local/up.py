"""Everything on this machine: what `lookalike up` and the demo start, in order, and stop again.

Kafka → its topics → index → workers → API → pulse, each when the one before is ready; addresses travel
through environment variables, so every child is the command that anybody can start by hand.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lookalike.addresses import LOCAL_PARTITIONS
from lookalike.local.children import Parts, children_of
from lookalike.local.kafka import LocalKafka
from lookalike.local.processes import free_ports, port_is_free
from lookalike.local.runfile import RunFile
from lookalike.local.s3 import LocalS3
from lookalike.local.supervisor import Child, ChildEvent, ChildStatus, Happening, Supervisor
from lookalike.local.targets import write_targets
from lookalike.settings import Settings
from streams.errors import ConfigError

MIN_FREE_BYTES = 1_000_000_000
MAX_SOCKET_PATH_BYTES = 100
"""As the index asks for: Linux allows 107."""

OnEvent = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What to start. `port` 0 takes a free one; `engine` is the index's, edge or exact.

    `objects` is where pictures lie on this machine, "folder" or "s3" (a server of our own).
    """

    settings: Settings
    data: Path
    port: int = 8080
    workers: int = 1
    engine: str = "edge"
    pulse: bool = True
    objects: str = "folder"


class Running:
    """What was started. A context manager: leaving it stops everything."""

    def __init__(
        self, *, parts: Parts, children: Sequence[Child], log_dir: Path, on_event: OnEvent, cleanup: ExitStack
    ) -> None:
        """`cleanup` is closed after everything has stopped."""
        self.parts = parts
        self._cleanup = cleanup
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._error: BaseException | None = None

        def tell(event: ChildEvent) -> None:
            on_event(f"{event.name}: {event.happening}{f' ({event.text})' if event.text else ''}")
            if event.happening is Happening.READY and self._supervisor.all_ready:
                self._ready.set()

        self._supervisor = Supervisor(children, log_dir=log_dir, on_event=tell)
        # A thread of its own, because children are killed when the thread that started them ends.
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    @property
    def api_url(self) -> str:
        """Where the API and the page answer."""
        return self.parts.api_url

    @property
    def broker(self) -> str:
        """What the broker is, for people."""
        return LocalKafka.version if self.parts.kafka is not None else f"Kafka at {self.parts.bootstrap}"

    def status(self) -> list[ChildStatus]:
        """How each child is now."""
        return self._supervisor.status()

    def start(self) -> None:
        """Returns when everything answers. Raises what kept it from that, after stopping the rest."""
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:
            self.stop()
            raise
        if self._error is not None:
            self.stop()
            raise self._error

    def wait(self) -> None:
        """Until something ends it that cannot be mended by a restart; raises that. Blocks."""
        # Not by joining the thread: where a signal interrupts a join, Python 3.11 takes the thread for ended.
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop all in order, within 30 s; twice is harmless."""
        self._stop.set()
        if self._thread.ident is not None:
            self._ended.wait()
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _supervise(self) -> None:
        try:
            self._supervisor.run_until(self._stop)
        except BaseException as exc:  # noqa: BLE001 - it ends the thread: `start` and `wait` raise it
            self._error = exc
        finally:
            self._ready.set()
            self._ended.set()


def start(options: UpOptions, on_event: OnEvent = lambda _line: None) -> Running:
    """Start everything and return when it answers. Blocks; may download Kafka the first time.

    Raises:
        ConfigError: a port is taken, too little disk, no permission, another `up`, no weights: one
            line. Nothing is left running, as after every other exception.
        DependencyError: a child does not get ready.
    """
    data = _folder(options.data)
    with ExitStack() as stack:
        runfile = RunFile(data)
        stack.enter_context(runfile.lock())
        parts = _parts(options, data, on_event, stack)
        running = Running(
            parts=parts,
            children=children_of(parts),
            log_dir=data / "logs",
            on_event=on_event,
            cleanup=stack.pop_all(),
        )
    running.start()
    try:
        runfile.write(
            bootstrap=parts.bootstrap,
            index_socket=parts.index_socket,
            objects_dir=parts.objects_dir,
            api_url=parts.api_url,
            status_urls=parts.status_urls,
            s3=None if parts.s3 is None else parts.s3.address,
        )
        write_targets(data, parts.status_urls)
    except BaseException:
        running.stop()
        raise
    return running


def _folder(folder: Path) -> Path:
    """The data folder, made where it is missing; with room for what will be written."""
    data = folder.resolve()
    try:
        data.mkdir(parents=True, exist_ok=True)
        (data / "logs").mkdir(exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{data} cannot be written: {exc.strerror or exc}; choose another with --data") from exc
    free_bytes = shutil.disk_usage(data).free
    if free_bytes < MIN_FREE_BYTES:
        raise ConfigError(
            f"too little disk: {free_bytes // 1_000_000} MB free in {data}, {MIN_FREE_BYTES // 1_000_000} MB needed; "
            "free some, or choose another folder with --data"
        )
    return data


def _parts(options: UpOptions, data: Path, on_event: OnEvent, stack: ExitStack) -> Parts:
    settings = options.settings
    if settings.index.qdrant_url is not None:
        raise ConfigError(
            "up runs an index of its own: unset LOOKALIKE_QDRANT_URL, or start lookalike worker and lookalike api "
            "themselves, which use that server"
        )
    if options.workers > 1 and settings.worker.metrics_port:
        raise ConfigError("LOOKALIKE_WORKER_METRICS_PORT is one port: with several workers set it to 0, or not at all")
    port = options.port or free_ports(1)[0]
    if not port_is_free(port):
        raise ConfigError(f"port {port} of 127.0.0.1 is taken: stop what listens there, or choose another with --port")
    objects_dir = settings.objects.objects_dir or data / "objects"
    s3 = _objects(options, data, objects_dir, on_event)
    kafka = None if settings.kafka.bootstrap is not None else LocalKafka(data / "kafka")
    if kafka is not None:
        kafka.prepare(on_event)
    return Parts(
        settings=settings,
        data=data,
        kafka=kafka,
        bootstrap=settings.kafka.bootstrap or (kafka.bootstrap if kafka is not None else ""),
        partitions=settings.kafka.partitions or LOCAL_PARTITIONS,
        index_socket=settings.index.index_socket or _socket(data, stack),
        engine=options.engine,
        objects_dir=objects_dir,
        workers=options.workers,
        port=port,
        s3=s3,
        status_ports=_status_ports(options),
    )


def _status_ports(options: UpOptions) -> dict[str, int]:
    """A free port for each child that tells about itself; a single worker's may be set."""
    names = ["index", *(f"worker-{number}" for number in range(1, options.workers + 1))]
    names += ["pulse"] if options.pulse else []
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    given = options.settings.worker.metrics_port
    return {**ports, "worker-1": given} if given else ports


def _objects(options: UpOptions, data: Path, objects_dir: Path, on_event: OnEvent) -> LocalS3 | None:
    """The buckets, wherever they are to be; of an S3 store in the settings they are its owner's to make."""
    given = options.settings.objects
    if options.objects == "s3":
        if given.s3_endpoint is not None or given.objects_dir is not None:
            variable = "LOOKALIKE_S3_ENDPOINT" if given.s3_endpoint is not None else "LOOKALIKE_OBJECTS_DIR"
            raise ConfigError(f"{variable} says where objects lie: unset it, or leave out --objects s3")
        s3 = LocalS3(data / "s3")
        s3.prepare(given.all_buckets, on_event)
        return s3
    if given.s3_endpoint is None:
        for bucket in given.all_buckets:
            _make(objects_dir / bucket)
    return None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{folder} cannot be written: {exc.strerror or exc}") from exc


def _socket(data: Path, stack: ExitStack) -> Path:
    """In the data folder, unless its path is too long for a socket."""
    path = data / "index.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lookalike-"))) / "index.sock"


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Within, the first Ctrl-C or SIGTERM raises KeyboardInterrupt; later ones don't disturb what stops in order."""

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
