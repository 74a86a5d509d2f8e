"""``lookalike doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from lookalike import standing
from lookalike.addresses import Addresses, find_addresses
from lookalike.options import data_option, json_option
from lookalike.output import print_json, say
from lookalike.settings import Settings, read_settings, unknown_variables
from lookalike.stores import open_store, place_of
from streams.errors import ConfigError, DependencyError

PACKAGES = ("confluent-kafka", "minio", "torch", "qdrant-edge-py", "pillow")
MIN_FREE_MB = 1000
"""As `up` asks for: Kafka's log and the index grow before anybody looks."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; where it is not `ok`, `text` says what to do."""

    name: str
    ok: bool
    text: str


@click.command("doctor")
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Check settings, services, versions, weights and disk; one line each. Exit 1 if any is bad.

    \b
    Examples:
      lookalike doctor
      lookalike doctor --data /srv/lookalike --json
    """
    findings = list(examine(data))
    bad = [finding for finding in findings if not finding.ok]
    if as_json:
        print_json({"ok": not bad, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            say(f"{'ok ' if finding.ok else 'BAD'}  {finding.name}: {finding.text}")
    if bad:
        ctx.exit(1)


def examine(data: Path | None) -> Iterator[Finding]:
    """Everything, in the order in which one thing needs the other."""
    yield from _versions()
    unknown = unknown_variables(os.environ)
    try:
        settings = read_settings()
    except ConfigError as exc:  # nothing else can be looked at with settings that do not hold
        for line in unknown or [str(exc)]:
            yield Finding("settings", ok=False, text=line)
        return
    yield Finding("settings", ok=True, text="every LOOKALIKE_ variable is known and valid")
    if settings.api.keys_file is not None:
        yield _keys(settings.api.keys_file)
    addresses = find_addresses(settings, data)
    yield from _vision(settings, addresses)
    yield _disk(addresses.data)
    yield from _services(settings, addresses)


def _versions() -> Iterator[Finding]:
    yield Finding("python", ok=True, text=platform.python_version())
    for package in PACKAGES:
        try:
            yield Finding(package, ok=True, text=version(package))
        except PackageNotFoundError:
            yield Finding(package, ok=False, text="is not installed: make install")


def _vision(settings: Settings, addresses: Addresses) -> Iterator[Finding]:
    """Weights, and the engine as far as it has been measured here: nothing is loaded."""
    from embedder.models.registry import model
    from lookalike.engines import engine_in_words, vision_options

    try:
        options = vision_options(settings, lambda: open_store(settings, addresses))
        network = model(settings.model.model)
        weights = network.find_weights(options.weights, expected_sha256=options.weights_sha256)
    except (ConfigError, DependencyError) as exc:
        yield Finding("weights", ok=False, text=str(exc))
        return
    yield Finding("weights", ok=True, text=f"{settings.model.model}: {weights.path} ({weights.sha256[:12]})")
    ok, text = engine_in_words(options, network, weights)
    yield Finding("engine", ok=ok, text=text)


def _keys(path: Path) -> Finding:
    from query_api.keys import read_keys

    try:
        n_keys = len(read_keys(path))
    except ConfigError as exc:
        return Finding("keys", ok=False, text=str(exc))
    return Finding("keys", ok=True, text=f"{n_keys} in {path}")


def _disk(data: Path) -> Finding:
    there = next(folder for folder in (data.resolve(), *data.resolve().parents) if folder.is_dir())
    free_mb = shutil.disk_usage(there).free // 1_000_000
    if free_mb < MIN_FREE_MB:
        text = f"{free_mb} MB free in {there}, {MIN_FREE_MB} needed: free some, or choose another folder with --data"
        return Finding("disk", ok=False, text=text)
    if not os.access(there, os.W_OK):
        return Finding("disk", ok=False, text=f"{there} cannot be written: change its permissions, or choose another")
    return Finding("disk", ok=True, text=f"{free_mb} MB free in {there}")


def _services(settings: Settings, addresses: Addresses) -> Iterator[Finding]:
    found = standing.standing(settings, addresses)
    for name in ("broker", "index", "api"):
        yield _service(name, found[name])
    yield _objects(settings, addresses)


def _service(name: str, part: dict[str, object]) -> Finding:
    if "error" in part:
        return Finding(name, ok=False, text=str(part["error"]))
    problems = part.get("problems") if part.get("ready") is None else (not part["ready"] and part["failed"])
    if isinstance(problems, list) and problems:
        return Finding(name, ok=False, text="; ".join(map(str, problems)))
    where = part.get("bootstrap") or part.get("url") or part.get("collection")
    return Finding(name, ok=True, text=f"{where} answers")


def _objects(settings: Settings, addresses: Addresses) -> Finding:
    try:
        store = open_store(settings, addresses)
        for bucket in settings.objects.all_buckets:
            store.check(bucket)
    except (ConfigError, DependencyError) as exc:
        return Finding("objects", ok=False, text=str(exc))
    return Finding("objects", ok=True, text=f"{place_of(settings, addresses)} answers")
