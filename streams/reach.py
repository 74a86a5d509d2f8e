"""Whether the broker answers: for readiness checks, asked often and by several threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.errors import DependencyError


class Broker:
    """One client that stays connected; nothing is connected before the first check."""

    def __init__(self, client: Mapping[str, Any], *, timeout_s: float = 1.5) -> None:
        """The default is shorter than the deadline of a readiness check, so that its words are told."""
        self._client = dict(client)
        self._timeout_s = timeout_s
        self._admin: AdminClient | None = None

    def check(self) -> None:
        """DependencyError where no broker gives metadata in time. Blocks."""
        if self._admin is None:  # two threads may each make one; the last is kept
            self._admin = AdminClient(self._client)
        try:
            self._admin.list_topics(timeout=self._timeout_s)
        except KafkaException as exc:
            raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
