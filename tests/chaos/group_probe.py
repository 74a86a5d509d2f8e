"""Prints what the broker knows of a consumer group, a line of JSON several times a second.

``python -m tests.chaos.group_probe BOOTSTRAP GROUP EVERY_S``. A process of its own: while its coordinator
comes and goes, librdkafka's admin client aborts the process that asks (librdkafka issues 3663 and 4605).
"""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient


def main(bootstrap: str, group_id: str, every_s: float) -> None:
    """Until it is killed, or a request fails: whoever reads starts another one, with a new client."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    while True:
        started_at = time.monotonic()
        described = admin.describe_consumer_groups([group_id], request_timeout=2.0)[group_id].result()
        asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group_id)], request_timeout=2.0)
        committed = asked[group_id].result().topic_partitions
        held = [
            (part.topic, part.partition) for member in described.members for part in member.assignment.topic_partitions
        ]
        sample = {
            "at": started_at,  # the clock is the machine's, the same in every process
            "members": len(described.members),
            "held": held,
            "committed": [(part.topic, part.partition, part.offset) for part in committed if part.offset >= 0],
        }
        sys.stdout.write(json.dumps(sample) + "\n")
        sys.stdout.flush()
        time.sleep(every_s)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
