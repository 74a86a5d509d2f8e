"""``lookalike topics``: the Kafka topics and their settings."""

from __future__ import annotations

from pathlib import Path

import click

from lookalike.addresses import find_addresses
from lookalike.options import data_option, json_option
from lookalike.output import print_json, say
from lookalike.settings import read_settings


@click.group("topics")
def command() -> None:
    """Create or check the Kafka topics.

    \b
    Examples:
      lookalike topics create
      LOOKALIKE_KAFKA_BOOTSTRAP=kafka:9092 LOOKALIKE_KAFKA_REPLICATION=3 lookalike topics create
      lookalike topics check --json
    """


@command.command("create")
@data_option
@json_option
def create_topics(data: Path | None, as_json: bool) -> None:
    """Create the topics that are missing; those that exist are left as they are."""
    from streams.topics import create

    settings = read_settings()
    addresses = find_addresses(settings, data)
    wanted = settings.kafka.topic_specs(partitions=addresses.partitions(settings))
    made = create(addresses.kafka(settings), wanted, replication=settings.kafka.replication)
    if as_json:
        print_json({"created": made, "kept": [spec.name for spec in wanted if spec.name not in made]})
        return
    for spec in wanted:
        say(f"{'created' if spec.name in made else 'exists '}  {spec.name}")


@command.command("check")
@data_option
@json_option
@click.pass_context
def check_topics(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Say what is not as the promises need it; exit 1 if anything is."""
    from streams.durability import check_durability, check_sizes
    from streams.topics import check

    settings = read_settings()
    addresses = find_addresses(settings, data)
    kafka, names = addresses.kafka(settings), settings.kafka.topic_names()
    wanted = settings.kafka.topic_specs(partitions=addresses.partitions(settings))
    problems = check(kafka, wanted)
    if not any(" is missing" in line for line in problems):
        problems += check_sizes(kafka, names)
        if not (settings.kafka.allow_single_broker or addresses.is_local(settings)):
            problems += check_durability(kafka, names)
    if as_json:
        print_json({"topics": [spec.name for spec in wanted], "problems": problems})
    else:
        for line in problems or [f"{len(wanted)} topics are as they must be"]:
            say(line)
    if problems:
        ctx.exit(1)
