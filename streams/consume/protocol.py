"""Which group protocol the broker has: `consumer` (KIP-848) takes a tenth of the time after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
    AdminClient,
    ConfigResource,
    ResourceType,
)

from streams.errors import DependencyError

log = structlog.get_logger(__name__)

_SETTING = "group.coordinator.rebalance.protocols"
"""The broker's own list, there since Kafka 3.7; `consumer` is in its default since 4.0."""


def group_protocol(client: Mapping[str, Any], wanted: str, *, timeout_s: float = 10.0) -> str:
    """`consumer` or `classic`: what is `wanted`, or with `auto` what the broker says it has.

    A broker that does not tell (too old, or it does not let us ask) gets `classic`, which every broker has.

    Raises:
        DependencyError: the broker does not answer.
    """
    if wanted != "auto":
        return wanted
    admin = AdminClient(dict(client))
    try:
        brokers = admin.list_topics(timeout=timeout_s).brokers
    except KafkaException as exc:
        raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
    resource = ConfigResource(ResourceType.BROKER, str(min(brokers)))
    (asked,) = admin.describe_configs([resource], request_timeout=timeout_s).values()
    try:
        entry = asked.result(timeout=timeout_s + 5).get(_SETTING)
    except KafkaException as exc:
        log.warning("group protocol classic: the broker does not tell what it has", error=exc.args[0].str())
        return "classic"
    offered = [] if entry is None or entry.value is None else [name.strip() for name in entry.value.split(",")]
    found = "consumer" if "consumer" in offered else "classic"
    log.info("group protocol found", protocol=found, offered=offered)
    return found
