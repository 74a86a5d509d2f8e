"""The processes of `up`: their commands, their environments, and when each is ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedder.index.service.client import IndexClient
from embedder.process_environment import PROCESS_ENVIRONMENT
from lookalike.asking import request
from lookalike.local.kafka import LocalKafka
from lookalike.local.s3 import LocalS3
from lookalike.local.supervisor import Child
from lookalike.settings import Settings
from streams.errors import DependencyError
from streams.group import GroupWatch
from streams.topics import Lane, create

API_STOP_S = 3.0
WORKER_STOP_S = 12.0
INDEX_STOP_S = 5.0
KAFKA_STOP_S = 8.0
"""In this order, 28 s together: a stop takes no longer than 30 s (design §11)."""
WORKER_DRAIN_S = 9.0
"""Of WORKER_STOP_S; the rest is for the last commit and for leaving the group."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that runs, and where; `kafka` is None where somebody else's cluster is used.

    Objects are at `s3`, or at the S3 store of the settings, else in `objects_dir`.
    """

    settings: Settings
    data: Path
    kafka: LocalKafka | None
    bootstrap: str
    partitions: int
    index_socket: Path
    engine: str
    objects_dir: Path
    workers: int
    port: int
    s3: LocalS3 | None = None
    status_ports: Mapping[str, int] = field(default_factory=dict)
    """Where each child but the API tells about itself, by its name; a pulse runs where it has one."""

    @property
    def status_urls(self) -> dict[str, str]:
        """Where `/metrics` is, by the child's name."""
        told = {name: f"http://127.0.0.1:{port}" for name, port in self.status_ports.items()}
        return {**told, "api": self.api_url}

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> dict[str, str | int]:
        """How the supervisor itself reaches the broker."""
        kafka = self.settings.kafka.model_copy(update={"bootstrap": self.bootstrap})
        return {**kafka.client_config(), "log_level": 0}

    def environment(self) -> dict[str, str]:
        """What every child of ours gets: the caller's variables, and where everything is.

        One thread a process: two workers with the default on two cores are 30 times slower.
        """
        return {
            "OMP_NUM_THREADS": "1",
            **os.environ,
            "LOOKALIKE_DATA": str(self.data),
            "LOOKALIKE_KAFKA_BOOTSTRAP": self.bootstrap,
            "LOOKALIKE_KAFKA_PARTITIONS": str(self.partitions),
            "LOOKALIKE_INDEX_SOCKET": str(self.index_socket),
            **self._objects(),
        }

    def _objects(self) -> dict[str, str]:
        if self.s3 is not None:
            return self.s3.address.environment()
        if self.settings.objects.s3_endpoint is not None:
            return {}  # the caller's variables say it
        return {"LOOKALIKE_OBJECTS_DIR": str(self.objects_dir)}


def children_of(parts: Parts) -> list[Child]:
    """In the order in which they start; they stop in reverse."""
    topics = _topics(parts)
    kafka = [] if parts.kafka is None else [_kafka(parts.kafka, topics)]
    s3 = [] if parts.s3 is None else [_s3(parts.s3)]
    index = _index(parts, ready_too=topics if parts.kafka is None else _always)
    workers = [_worker(parts, number) for number in range(1, parts.workers + 1)]
    pulse = [_pulse(parts)] if "pulse" in parts.status_ports else []
    return [*kafka, *s3, index, *workers, _api(parts), *pulse]


def _own(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lookalike", *arguments]


def _always() -> bool:
    return True


def _topics(parts: Parts) -> Callable[[], bool]:
    """Creates the topics; True once they are there. Asked again after a restart, when it changes nothing."""

    def there() -> bool:
        kafka = parts.settings.kafka
        try:
            create(parts.client(), kafka.topic_specs(partitions=parts.partitions), replication=kafka.replication)
        except DependencyError:
            return False
        return True

    return there


def _kafka(kafka: LocalKafka, topics: Callable[[], bool]) -> Child:
    return Child(
        name="kafka",
        command=kafka.command(),
        env=kafka.environment(),
        ready=lambda: kafka.answers() and topics(),
        stop_timeout_s=KAFKA_STOP_S,
        ready_timeout_s=120.0,
    )


def _s3(s3: LocalS3) -> Child:
    return Child(
        name="s3",
        command=s3.command(),
        env=s3.environment(),
        ready=s3.answers,
        stop_timeout_s=INDEX_STOP_S,
        stop_group="stores",
    )


def _index(parts: Parts, *, ready_too: Callable[[], bool]) -> Child:
    def ready() -> bool:
        client = IndexClient(parts.index_socket, timeout_s=1.0)
        try:
            client.ping()
        except DependencyError:
            return False
        finally:
            client.close()
        return ready_too()

    folder, socket = str(parts.data / "index"), str(parts.index_socket)
    return Child(
        name="index",
        command=_own("index", "serve", "--data", folder, "--socket", socket, "--engine", parts.engine),
        env={**parts.environment(), "LOOKALIKE_INDEX_METRICS_PORT": str(parts.status_ports["index"])},
        ready=ready,
        stop_timeout_s=INDEX_STOP_S,
        stop_group="stores",  # neither needs the other: they end at the same time
        ready_timeout_s=120.0,
    )


def _worker(parts: Parts, number: int) -> Child:
    return Child(
        name=f"worker-{number}",
        command=_own("worker", *([] if parts.kafka is None else ["--allow-single-broker"])),
        env=_worker_environment(parts, number),
        ready=_everything_owned(parts),
        stop_timeout_s=WORKER_STOP_S,
        stop_group="workers",  # they drain at the same time, so that the time of one is enough for all
        ready_timeout_s=180.0,
    )


def _worker_environment(parts: Parts, number: int) -> dict[str, str]:
    worker = parts.settings.worker
    name = {} if worker.id is None else {"LOOKALIKE_WORKER_ID": f"{worker.id}-{number}"}
    drain = {"LOOKALIKE_WORKER_DRAIN_S": str(min(worker.drain_s, WORKER_DRAIN_S))}
    port = {"LOOKALIKE_WORKER_METRICS_PORT": str(parts.status_ports[f"worker-{number}"])}
    return {**PROCESS_ENVIRONMENT, **parts.environment(), **name, **drain, **port}


def _everything_owned(parts: Parts) -> Callable[[], bool]:
    """Whether every partition of every lane has an owner: what is announced now is worked on now."""
    kafka = parts.settings.kafka
    watches: list[GroupWatch] = []  # one, made when it is first asked: clients belong to the supervisor's thread

    def owned() -> bool:
        lanes = {kafka.topic_names().lane(lane) for lane in Lane}
        wanted = sum(spec.partitions for spec in kafka.topic_specs(partitions=parts.partitions) if spec.name in lanes)
        if not watches:
            watches.append(GroupWatch(parts.client(), kafka.group_id))
        try:
            return watches[0].owned_partitions(lanes) >= wanted
        except DependencyError:
            return False

    return owned


def _api(parts: Parts) -> Child:
    def ready() -> bool:
        try:
            return request(parts.api_url, "/healthz", timeout_s=1.0)[0] == 200
        except DependencyError:
            return False

    return Child(
        name="api",
        command=_own("api", "--host", "127.0.0.1", "--port", str(parts.port)),
        env=parts.environment(),
        ready=ready,
        stop_timeout_s=API_STOP_S,
        stop_group="front",
    )


def _pulse(parts: Parts) -> Child:
    """It watches the others and none of them needs it: it starts last, and ends together with the API."""
    port = parts.status_ports["pulse"]

    def ready() -> bool:
        try:
            return request(f"http://127.0.0.1:{port}", "/healthz", timeout_s=1.0)[0] == 200
        except DependencyError:
            return False

    return Child(
        name="pulse",
        command=_own("pulse"),
        env={**parts.environment(), "LOOKALIKE_PULSE_METRICS_PORT": str(port)},
        ready=ready,
        stop_timeout_s=API_STOP_S,
        stop_group="front",
    )
