"""Kafka's jars: which they are, and how jgo resolves them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lookalike.local.jars import JavaProgram

VERSION = "4.3.1"
ARTIFACTS = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",  # without it the broker logs nothing
)
"""Resolved one by one: together, log4j's dependency management would bring kafka-clients 3.9 in place of 4.3."""


def _resolve(repository: Path) -> list[Path]:
    jars = {jar.name: jar for artifact in ARTIFACTS for jar in _download(artifact, repository)}
    return list(jars.values())


def _download(artifact: str, repository: Path) -> list[Path]:
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository)
    wanted = context.create_dependency(artifact)
    wanted.scope = "compile"
    found, needed = context.resolver.resolve([wanted])
    artifacts = [one.artifact for one in (*found, *needed) if one.scope in ("compile", "runtime")]
    with ThreadPoolExecutor(8, thread_name_prefix="jars") as pool:
        return list(pool.map(lambda one: Path(one.resolve()), artifacts))


KAFKA = JavaProgram(
    name="kafka",
    title="Apache Kafka",
    version=VERSION,
    size_mb=45,
    download=_resolve,
    otherwise="set LOOKALIKE_KAFKA_BOOTSTRAP to the address of a running cluster",
)
