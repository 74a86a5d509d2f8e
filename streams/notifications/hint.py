"""What a bucket notification is worth: somebody did something to this key. What is there now, only the store knows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streams.errors import EventError


class Kind(StrEnum):
    """What the store says was done."""

    CREATED = "created"
    REMOVED = "removed"


class Dialect(StrEnum):
    """Who writes notifications in this way."""

    MINIO = "minio"
    AWS = "aws"
    VERSITYGW = "versitygw"


@dataclass(frozen=True, slots=True)
class Hint:
    """One key to look at. Everything else that a record tells is left there: no store has all of it right."""

    dialect: Dialect
    bucket: str
    key: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Notification:
    """One Kafka record, read. `n_ignored` of its events are no work; `problem` is the first that cannot be read."""

    hints: tuple[Hint, ...] = ()
    n_ignored: int = 0
    problem: EventError | None = None
