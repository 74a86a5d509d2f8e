"""Build a collection anew with other declared fields: their indexes have to be there before the first point.

Everything is made beside the collection and put in its place with two renames; what a crash between the
two leaves is finished by the next start (:func:`finish`). Until then the old one is whole.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec

from embedder.index.fields import Field
from embedder.index.protocol import CollectionSpec
from streams.errors import ConfigError

_PART = 256


def migrate(data: Path, fields: Sequence[Field]) -> tuple[CollectionSpec, int]:
    """Migrate what the alias means in an index folder that no process has; the new spec and the number of points.

    Raises:
        ConfigError: a process has the folder, there is no collection, or the engine needs no migration.
    """
    if not (data / "alias").exists():
        raise ConfigError(f"there is no collection in {data}")
    with (data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigError(f"an index process has {data}: stop it first") from exc
        finish(data)
        home = data / "collections" / (data / "alias").read_text().strip()
        found = json.loads((home / "spec.json").read_text())
        new = replace(msgspec.convert(found, CollectionSpec), fields=tuple(fields))
        beside = data / "migrating" / home.name
        shutil.rmtree(beside.parent, ignore_errors=True)
        beside.mkdir(parents=True)
        n_points = _rebuild(found, home, new, beside)
        described = {**found, "fields": json.loads(msgspec.json.encode(new.fields))}
        (beside / "spec.json").write_text(json.dumps(described))  # the last file: with it the copy is complete
        finish(data)
    return new, n_points


def _rebuild(found: dict[str, object], home: Path, new: CollectionSpec, beside: Path) -> int:
    if found["engine"] != "edge":  # the exact engine keeps no indexes: its points are as they were
        shutil.copy2(home / "journal", beside / "journal")
        from embedder.index.exact import ExactIndex  # noqa: PLC0415 - only the engine that is used is loaded

        with closing(ExactIndex(new, journal=beside / "journal")) as exact:
            return sum(exact.stats().points.values())
    from embedder.index.edge.shard import EdgeIndex  # noqa: PLC0415 - as above

    old = msgspec.convert(found, CollectionSpec)
    n_points = 0
    with closing(EdgeIndex(old, home)) as source, closing(EdgeIndex(new, beside)) as copy:
        for part in source.everything(_PART):
            copy.put_back(part)
            n_points += len(part)
        copy.optimise()
    return n_points


def finish(data: Path) -> None:
    """Put a complete copy into its place, and remove what is left of any other. May be called at every start."""
    for beside in sorted((data / "migrating").glob("*")):
        home, old = data / "collections" / beside.name, data / "migrated"
        if (beside / "spec.json").exists():
            if home.exists():
                shutil.rmtree(old, ignore_errors=True)
                home.rename(old)
            beside.rename(home)
    shutil.rmtree(data / "migrating", ignore_errors=True)
    shutil.rmtree(data / "migrated", ignore_errors=True)
