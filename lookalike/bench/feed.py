"""Announces pictures at a steady rate, from a process of its own: a publisher beside the worker would share its lock.

Run as ``python -m lookalike.bench.feed BOOTSTRAP PREFIX SECONDS TENANT=RATE…``; prints one JSON object
``{tenant: events}`` when the broker has everything.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

from streams.errors import DependencyError
from streams.event import Location, created, encode
from streams.producer import KafkaProducer
from streams.topics import Lane, TopicNames

BUCKET = "pictures"
TICK_S = 0.01


def main() -> int:
    bootstrap, prefix, seconds, *asked = sys.argv[1:]
    rates = {tenant: float(rate) for tenant, rate in (one.split("=") for one in asked)}
    topic = TopicNames(prefix).lane(Lane.LIVE)
    sent: Counter[str] = Counter()
    failed: list[DependencyError] = []
    started = time.monotonic()
    with KafkaProducer({"bootstrap.servers": bootstrap, "log_level": 0}) as producer:
        while (at := time.monotonic() - started) < float(seconds):
            for tenant, rate in rates.items():
                while sent[tenant] < at * rate:
                    n = sent[tenant]
                    event = created(tenant, f"{prefix.strip('.')}-{n}", Location(BUCKET, f"{tenant}/{n}.jpg"))
                    key, value, headers = encode(event)
                    producer.send(
                        topic,
                        key=key,
                        value=value,
                        headers=headers,
                        on_ack=lambda error: failed.append(error) if error else None,
                    )
                    sent[tenant] += 1
            time.sleep(TICK_S)
    print(json.dumps(sent), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
