"""What integration tests stand on: one real Kafka and one real S3 a session, and names nobody else uses."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from lookalike.local.kafka import LocalKafka
from lookalike.local.s3 import LocalS3
from tests import real_qdrant  # noqa: F401 - takes its variables out of the environment, before anything is started


@dataclass(frozen=True, slots=True)
class Broker:
    """A Kafka cluster that answers."""

    bootstrap: str


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The cluster of LOOKALIKE_KAFKA_BOOTSTRAP, else one local node for the session; its failure is the tests'."""
    given = os.environ.get("LOOKALIKE_KAFKA_BOOTSTRAP")
    if given:
        yield Broker(given)
        return
    with LocalKafka(tmp_path_factory.mktemp("kafka"), group_session_timeout_ms=6_000) as local:
        yield Broker(local.bootstrap)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """A real S3 server for the session; a test makes buckets of its own (`make_buckets`)."""
    with LocalS3(tmp_path_factory.mktemp("s3")) as local:
        yield local


@pytest.fixture(autouse=True, scope="session")
def uncached_loggers() -> Iterator[None]:
    """A logger that was used once keeps its configuration for good; tests configure more than once in a process."""
    configure = structlog.configure

    def uncached(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", uncached)
        yield


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """What a command that a test runs in this process makes of logging ends with that test."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def unique() -> str:
    """A short name for this test alone."""
    return f"t{uuid.uuid4().hex[:10]}"
