"""The index process's life: its folder and socket are its own, its collections opened, asked until it is stopped."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog

from embedder.index.collections import Collections, Engine
from embedder.index.metrics import IndexMetrics
from embedder.index.protocol import CollectionSpec
from embedder.index.service.server import IndexServer
from streams.errors import ConfigError, DependencyError
from streams.status_server import StatusServer, process_registry

log = structlog.get_logger(__name__)

LEFT_BEHIND_S = 5.0
"""Holders of a process that was killed take a tenth of a second a gigabyte to go."""
MAX_SOCKET_PATH_BYTES = 100
"""Linux allows 107; room for the suffix of a temporary name."""


def _claim(socket_path: Path) -> None:
    """Remove the socket of a process that was killed; ConfigError for anything else that is there."""
    try:
        mode = socket_path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{socket_path} is a file, not a socket: choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(socket_path))
        except TimeoutError:
            pass  # its queue of callers is full: somebody is there
        except OSError:
            socket_path.unlink(missing_ok=True)
            return
    raise ConfigError(f"another process answers at {socket_path}: stop it, or choose another path")


@dataclass(frozen=True, slots=True)
class StatusAddress:
    """Where the process tells about itself."""

    host: str
    port: int


def serve_forever(*, data: Path, engine: str, socket_path: Path, status: StatusAddress | None = None) -> int:
    """``lookalike index serve``: until SIGTERM or Ctrl-C; returns the exit code. Runs in the main thread.

    The exit code is 1 where writes could not be made durable, or the process that holds the vectors died: a new start
    reads what is on the disk.

    Raises:
        ConfigError: another index process has this folder or socket, or one of them cannot be made.
    """
    if len(os.fsencode(socket_path)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the socket's path is too long for Linux (over {MAX_SOCKET_PATH_BYTES} bytes): {socket_path}"
        )
    try:
        data.mkdir(parents=True, exist_ok=True)
        socket_path.parent.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("w")
    except OSError as exc:
        raise ConfigError(f"{data} cannot be written: {exc.strerror or exc}") from exc
    with lock:
        _lock(lock, data)
        _claim(socket_path)
        try:
            asyncio.run(_serve(data, _opener(engine, lock.fileno()), engine, socket_path, status))
        except DependencyError as exc:  # whoever supervises starts it again on what is on the disk
            log.critical("index ended", error=exc.message)
            return 1
        finally:
            socket_path.unlink(missing_ok=True)
    return 0


def _lock(lock: IO[str], data: Path) -> None:
    """Have the folder. Holders share the lock: those of a process that was killed need a moment to go, gigabytes as
    they are."""
    deadline = time.monotonic() + LEFT_BEHIND_S
    while not _locked(lock):
        if time.monotonic() > deadline:
            raise ConfigError(f"another index process has {data}: stop it, or choose another folder")
        time.sleep(0.05)  # `flock` has no time-out


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _serve(
    data: Path,
    open_engine: Callable[[CollectionSpec, Path], Engine],
    engine: str,
    socket_path: Path,
    status: StatusAddress | None,
) -> None:
    registry = process_registry()
    collections = Collections(data, open_engine, engine=engine)
    with ExitStack() as stack:
        stack.callback(collections.close)
        collections.open_all()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = IndexServer(collections, metrics=IndexMetrics(registry, folder=data))
        if status is not None:
            stack.enter_context(
                StatusServer(status.host, status.port, registry=registry, health=server.health, ready=server.health)
            )
        await server.serve(socket_path, stop)


def _opener(engine: str, lock: int) -> Callable[[CollectionSpec, Path], Engine]:
    """How collections are opened; `lock` is the folder's, which is let go when nobody has it any more."""
    if engine == "exact":
        from embedder.index.exact import ExactIndex  # noqa: PLC0415 - only the engine that is used is loaded

        return lambda spec, home: ExactIndex(spec, journal=home / "journal")
    if engine == "edge":
        from embedder.index.apart.engine import EngineApart  # noqa: PLC0415 - as above

        return lambda spec, home: EngineApart(spec, home, inherited=(lock,))
    raise ConfigError(f"index engine {engine!r} is not known: use edge or exact")
