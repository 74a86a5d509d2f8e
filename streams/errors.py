"""Every error this project raises on purpose, split by what the receiver does next.

    LookalikeError
    ├── EventError        this event can never work: dead-letter it with its reason, commit past it
    ├── RetryableError    this picture, not now: try again; at the end dead-letter `attempts_exhausted`
    ├── DependencyError   the world is unwell: back off, keep the offset, lose nothing
    │   └── RecordTooLargeError   this one record does not fit: the one that a repetition does not mend
    ├── ConfigError       started wrongly: one line that says what to change, exit 3, no traceback
    └── QueryError        the caller's mistake: 4xx with the one error body

A foreign error (Kafka's, the index's, Pillow's) is translated at the adapter that owns the library,
with ``raise ... from exc``; nothing above an adapter knows another library's exceptions.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an event could not be applied: the word in dead letters, outcomes, metrics and status."""

    EVENT_INVALID = "event_invalid"
    EVENT_UNSUPPORTED = "event_unsupported"
    LOCATION_FORBIDDEN = "location_forbidden"
    IMAGE_MISSING = "image_missing"
    IMAGE_EMPTY = "image_empty"
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_UNSUPPORTED = "image_unsupported"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_SMALL = "image_too_small"
    DECODER_TIMEOUT = "decoder_timeout"
    DECODER_CRASHED = "decoder_crashed"
    VECTOR_INVALID = "vector_invalid"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    INTERNAL_ERROR = "internal_error"


class LookalikeError(Exception):
    """What this project raises on purpose."""


class EventError(LookalikeError):
    """This event can never work. `field` names the offending part of the event, where there is one."""

    def __init__(self, reason: Reason, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field


class RetryableError(LookalikeError):
    """This picture cannot be had right now (not there yet, a short read, one server error)."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class DependencyError(LookalikeError):
    """A service everything stands on does not answer; `dependency` is index, bucket or broker."""

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(message)
        self.dependency = dependency
        self.message = message


class RecordTooLargeError(DependencyError):
    """The broker takes no record of this size into this topic: send less of it, or elsewhere."""


class ConfigError(LookalikeError):
    """Started wrongly. The message is the one line the operator reads: what is wrong, what to do."""


class QueryError(LookalikeError):
    """The caller's mistake. `status` is the HTTP status, `code` the machine-readable word."""

    def __init__(self, status: int, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
