"""Which collections there are: a folder each, and a file that says which one the alias means."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from embedder.index.durable import replace_file, sync_folder
from embedder.index.fields import check_fields
from embedder.index.migrate import finish
from embedder.index.points import Write, Written
from embedder.index.protocol import CollectionInfo, CollectionSpec, Maintenance, Searcher, Sweeper
from streams.errors import ConfigError, DependencyError

SCHEMA_VERSION = 1
"""Of what lies in a collection's folder; another one is refused instead of misread."""
MAX_DIM = 65_536
"""Qdrant's own limit."""
_NAME = re.compile(r"[a-z0-9_.-]{1,200}\Z")


class Answering(Searcher, Maintenance, Sweeper, Protocol):
    """What a collection is asked; one thread asks, durability is asked for apart."""

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list: ...  # type: ignore[type-arg]  # as Writer


class Engine(Answering, Protocol):
    """An index inside the index process, or held by another one for it."""

    def write_now(self, tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        """Apply; visible to searches on return, durable after the next `flush`."""
        ...

    def waiting(self) -> int:
        """How many points are in no graph yet."""
        ...

    def optimise_soon(self) -> None:
        """Let the next `maintain` build what is missing, however little it is."""
        ...

    def busy(self) -> bool:
        """Whether maintenance is under way: `maintain` is then called more often."""
        ...

    def held(self) -> bool:
        """Whether nothing may be written for now: its files are being copied. Changes in `maintain` only."""
        ...

    def maintain(self, *, idle_s: float) -> None:
        """Keep it quick: called between requests; `idle_s` since the last one.

        Raises:
            DependencyError: the engine is lost; only a new start knows what is on the disk.
        """
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class Collections:
    """The collections of one data folder, each opened when it is first asked for."""

    def __init__(self, folder: Path, open_engine: Callable[[CollectionSpec, Path], Engine], *, engine: str) -> None:
        """`engine` is the name recorded with each collection: one made by another is refused."""
        self._folder = folder
        self._open_engine = open_engine
        self._engine = engine
        self._open: dict[str, Engine] = {}

    def ensure(self, spec: CollectionSpec) -> None:
        """Make the collection where it is not there; the first one becomes what the alias means.

        Raises:
            ConfigError: it is there with another size or schema, or made by another engine.
        """
        if _NAME.match(spec.name) is None:
            raise ConfigError(f"{spec.name!r} is no name for a collection")
        if not 1 <= spec.dim <= MAX_DIM:
            raise ConfigError(f"vectors of {spec.dim} floats cannot be kept: 1 to {MAX_DIM} can")
        home = self._folder / "collections" / spec.name
        check_fields(spec.fields)
        wanted = {"schema": SCHEMA_VERSION, "engine": self._engine, **as_json(spec)}
        try:
            if (home / "spec.json").exists():
                _compare(home, _read_spec(home), wanted)
            else:
                home.mkdir(parents=True, exist_ok=True)
                replace_file(home / "spec.json", json.dumps(wanted))
            if not (self._folder / "alias").exists():
                replace_file(self._folder / "alias", spec.name)
        except OSError as exc:
            raise ConfigError(f"{home} cannot be written: {exc.strerror or exc}") from exc

    def get(self, name: str) -> Engine:
        """The collection of this name, "" for the alias.

        Raises:
            DependencyError: there is none yet: no worker has made it.
        """
        name = name or self._alias()
        engine = self._open.get(name)
        if engine is None:
            home = self._folder / "collections" / name
            if _NAME.match(name) is None or not (home / "spec.json").exists():
                raise DependencyError("index", f"there is no collection {name!r}: start a worker, it makes one")
            engine = self._open[name] = self._open_at(home)
        return engine

    def described(self) -> list[CollectionInfo]:
        """Every collection, by name."""
        names = sorted(home.parent.name for home in (self._folder / "collections").glob("*/spec.json"))
        current = self._alias() if names else ""
        return [self._described(name, current) for name in names]

    def _described(self, name: str, current: str) -> CollectionInfo:
        engine = self.get(name)
        points = sum(engine.stats().points.values())
        return CollectionInfo(name, engine.spec(), self._engine, name == current, points, engine.waiting())

    def switch(self, name: str) -> None:
        """Let the alias mean this collection. ConfigError where there is none."""
        self._known(name)
        replace_file(self._folder / "alias", name)

    def drop(self, name: str) -> None:
        """Remove a collection and everything in it. ConfigError for what the alias means, and for none."""
        self._known(name)
        if name == self._alias():
            raise ConfigError(f"{name} is what the alias means: switch to another collection first")
        engine = self._open.pop(name, None)
        if engine is not None:
            engine.close()
        gone = self._folder / "dropped"
        shutil.rmtree(gone, ignore_errors=True)
        (self._folder / "collections" / name).rename(gone)  # gone at once, whatever becomes of the removal
        sync_folder(self._folder / "collections")
        shutil.rmtree(gone, ignore_errors=True)

    def _known(self, name: str) -> None:
        if _NAME.match(name) is None or not (self._folder / "collections" / name / "spec.json").exists():
            raise ConfigError(f"there is no collection {name[:200]!r}: lookalike index status lists them")

    def opened(self) -> Iterator[Engine]:
        """Every collection that is open."""
        yield from self._open.values()

    def open_all(self) -> None:
        """Open what is there: a damaged collection stops the process at its start, not at its first query."""
        finish(self._folder)
        for home in sorted((self._folder / "collections").glob("*/spec.json")):
            self.get(home.parent.name)

    def close(self) -> None:
        with ExitStack() as stack:  # one that fails leaves none of the others open
            for engine in self._open.values():
                stack.callback(engine.close)
            self._open.clear()

    def _open_at(self, home: Path) -> Engine:
        found = _read_spec(home)
        _compare(home, found, {"schema": SCHEMA_VERSION, "engine": self._engine})
        try:
            spec = msgspec.convert(found, CollectionSpec)
        except msgspec.ValidationError as exc:
            raise _damaged(home) from exc
        engine = self._open_engine(spec, home)
        sync_folder(home)
        return engine

    def _alias(self) -> str:
        try:
            return (self._folder / "alias").read_text().strip()
        except FileNotFoundError as exc:
            raise DependencyError("index", "there is no collection yet: start a worker, it makes one") from exc


def as_json(spec: CollectionSpec) -> dict[str, object]:
    """The spec as its file holds it."""
    return dict(json.loads(msgspec.json.encode(spec)))


def _read_spec(home: Path) -> dict[str, object]:
    try:
        found = json.loads((home / "spec.json").read_text())
    except ValueError as exc:
        raise _damaged(home) from exc
    if not isinstance(found, dict):
        raise _damaged(home)
    return {"fields": [], **found}


def _damaged(home: Path) -> ConfigError:
    return ConfigError(f"{home / 'spec.json'} is damaged: move the folder away and index again")


def _compare(home: Path, found: dict[str, object], wanted: dict[str, object]) -> None:
    for name, value in wanted.items():
        if found.get(name) == value:
            continue
        if name == "fields":
            raise ConfigError(
                f"the collection in {home} was made for other fields ({_names(found[name])}) than those declared now "
                f"({_names(value)}): declare the same, or run lookalike index migrate"
            )
        raise ConfigError(
            f"the collection in {home} has {name} {found.get(name)!r}, {value!r} is wanted: "
            "use another data folder, or move this collection away"
        )


def _names(fields: object) -> str:
    described = [f"{one['name']}:{one['kind']}" for one in fields] if isinstance(fields, list) else []
    return ", ".join(described) or "none"
