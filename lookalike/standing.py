"""How everything stands, asked of each service by itself: what `status` prints, and `doctor` draws on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from lookalike.addresses import Addresses
from lookalike.settings import Settings
from streams.errors import ConfigError, DependencyError

DEAD_LETTERS_READ = 10_000
"""The newest of so many per partition are counted: a status is an answer, not a report."""
DEAD_LETTERS_READ_S = 15.0


def standing(settings: Settings, addresses: Addresses) -> dict[str, Any]:
    """Everything; a service that does not answer has an `error` instead of its figures. Blocks up to a minute."""
    return {
        "broker": _or_error(broker, settings, addresses),
        "lag": _or_error(lag, settings, addresses),
        "dead_letters": _or_error(dead_letters, settings, addresses),
        "model": _or_error(model, settings, addresses),
        "index": _or_error(index, settings, addresses),
        "api": _or_error(api, settings, addresses),
    }


Part = Callable[[Settings, Addresses], dict[str, Any]]


def _or_error(part: Part, settings: Settings, addresses: Addresses) -> dict[str, Any]:
    try:
        return part(settings, addresses)
    except (ConfigError, DependencyError) as exc:
        return {"error": str(exc)}


def broker(settings: Settings, addresses: Addresses) -> dict[str, Any]:
    """Where the broker is, and what is wrong with its topics."""
    from streams.topics import check

    client = addresses.kafka(settings)
    wanted = settings.kafka.topic_specs(partitions=addresses.partitions(settings))
    return {"bootstrap": client["bootstrap.servers"], "problems": check(client, wanted)}


def lag(settings: Settings, addresses: Addresses) -> dict[str, Any]:
    """Records per lane that the workers' group has not finished."""
    from streams.group import group_lag
    from streams.topics import Lane

    client, names = addresses.kafka(settings), settings.kafka.topic_names()
    return {names.lane(lane): group_lag(client, settings.kafka.group_id, names.lane(lane)) for lane in Lane}


def dead_letters(settings: Settings, addresses: Addresses) -> dict[str, Any]:
    """The dead letters that are still kept, by reason; times are the broker's (LogAppendTime)."""
    from streams.onward import DEAD_PREFIX
    from streams.tail import Tail, TailRecord, extent

    client, topic = addresses.kafka(settings), settings.kafka.topic_names().dead
    there = extent(client, topic)
    ends = {number: end for number, end in there.next_offset.items() if end > there.first_offset[number]}
    starts = {number: max(there.first_offset[number], end - DEAD_LETTERS_READ) for number, end in ends.items()}
    records: list[TailRecord] = []
    deadline = time.monotonic() + DEAD_LETTERS_READ_S
    with Tail(client, topic, start=starts) as tail:
        reached = dict(starts)
        while any(reached[number] < end for number, end in ends.items()):
            if time.monotonic() > deadline:
                raise DependencyError("broker", f"topic {topic} could not be read in {DEAD_LETTERS_READ_S:.0f} s")
            for record in tail.poll(wait_s=0.5):
                records.append(record)
                reached[record.partition] = record.offset + 1
    reasons = Counter(dict(record.headers).get(f"{DEAD_PREFIX}reason", b"unknown").decode() for record in records)
    newest = max((record.timestamp_ms for record in records), default=None)
    return {
        "total": sum(end - there.first_offset[number] for number, end in ends.items()),
        "by_reason": dict(sorted(reasons.items())),
        "newest_at": None if newest is None else datetime.fromtimestamp(newest / 1000, UTC).isoformat(),
    }


def model(settings: Settings, addresses: Addresses) -> dict[str, Any]:
    """What these settings make of pictures; the engine as far as the gate has measured it on this machine."""
    from embedder.models.registry import model as model_named
    from lookalike.engines import engine_in_words, vision_options
    from lookalike.stores import open_store

    options = vision_options(settings, lambda: open_store(settings, addresses))
    network = model_named(options.model)
    weights = network.find_weights(options.weights, expected_sha256=options.weights_sha256)
    ok, engine = engine_in_words(options, network, weights)
    return {
        "model": options.model,
        "weights_sha256": weights.sha256,
        "preprocessing": options.preprocessing,
        "engine": engine,
        "problems": [] if ok else [f"engine {engine}"],
    }


def index(settings: Settings, addresses: Addresses) -> dict[str, Any]:
    """What the collection holds, over all tenants."""
    from lookalike.index import open_index

    client = open_index(settings, addresses)
    try:
        stats = client.stats()
    finally:
        client.close()
    return {
        "engine": stats.engine,
        "collection": stats.collection,
        "tenants": stats.tenants,
        "points": _named(stats.points),
        "attempts": _named(stats.attempts),
    }


def _named(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(name): n for name, n in counts.items()}


def api(settings: Settings, addresses: Addresses) -> dict[str, Any]:
    """Where the API answers, and whether everything behind it does."""
    from lookalike.asking import request

    url = addresses.api_url(settings)
    status, answer = request(url, "/readyz")
    checks = answer.get("dependencies", {})
    failed = [f"{name}: {check['last_error']}" for name, check in checks.items() if check["state"] != "ok"]
    return {"url": url, "ready": status == 200, "failed": failed}


def all_answer(found: Mapping[str, Any]) -> bool:
    """Whether every service answered and nothing is wrong with it."""
    ready = found["api"].get("ready", False)
    return ready and not any("error" in part or part.get("problems") for part in found.values())
