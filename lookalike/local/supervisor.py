"""Keeps the processes of `lookalike up` running: started in order, restarted with back-off, stopped in reverse."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lookalike.local.processes import signal_group, spawn
from streams.errors import ConfigError, DependencyError

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
HEALTHY_AFTER_S = 30.0
"""A child that lived this long starts its back-off anew."""
EXIT_CONFIG = 3
TICK_S = 0.05
MAX_LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep. `ready` is asked until it holds; `before_start` runs before every start."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] | None = None
    stop_timeout_s: float = 5.0
    ready_timeout_s: float = 60.0
    before_start: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """Something happened to a child: `what` is started, ready, died or stopped; `detail` says more."""

    name: str
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """A child as it is now; `restarts` counts since the supervisor started."""

    name: str
    pid: int | None
    restarts: int
    ready: bool


@dataclass
class _Kept:
    child: Child
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    backoff_s: float = FIRST_BACKOFF_S
    restarts: int = 0
    ready: bool = False


class Supervisor:
    """All methods but :meth:`status` on one thread, which must live as long as the children should:
    the kernel kills them when it ends (see `processes.spawn`)."""

    def __init__(
        self, children: Sequence[Child], *, log_dir: Path, on_event: Callable[[ChildEvent], None] = lambda _event: None
    ) -> None:
        """Outputs go to ``log_dir/NAME.log``."""
        self._kept = [_Kept(child, log_dir / f"{child.name}.log") for child in children]
        self._on_event = on_event
        log_dir.mkdir(parents=True, exist_ok=True)

    def start(self, stop: threading.Event) -> None:
        """Start all, each when the one before is ready; returns early when `stop` is set. Blocks.

        Raises:
            ConfigError: a child says that it was started wrongly; with the last line it wrote.
            DependencyError: a child does not get ready.
        """
        for kept in self._kept:
            self._spawn(kept)
            deadline = time.monotonic() + kept.child.ready_timeout_s
            while not self._check_ready(kept):
                if stop.wait(TICK_S):
                    return
                self._revive(kept)
                if time.monotonic() > deadline:
                    raise DependencyError(kept.child.name, f"{kept.child.name} does not get ready: see {kept.log}")

    def run_until(self, stop: threading.Event) -> None:
        """Keep them running until `stop` is set. Blocks. Raises as :meth:`start` does."""
        while not stop.wait(TICK_S):
            for kept in self._kept:
                self._revive(kept)
                if not kept.ready:
                    self._check_ready(kept)

    def stop(self) -> None:
        """Stop in reverse order, each within its time; whatever still lives is killed. Twice is harmless."""
        for kept in reversed(self._kept):
            process, kept.process = kept.process, None
            kept.restart_at = None
            if process is None:
                continue
            signal_group(process, signal.SIGTERM)
            try:
                process.wait(kept.child.stop_timeout_s)
            except subprocess.TimeoutExpired:
                self._on_event(ChildEvent(kept.child.name, "killed", f"after {kept.child.stop_timeout_s:g} s"))
            signal_group(process, signal.SIGKILL)  # what it may have left behind in its group
            process.wait()
            kept.ready = False
            self._on_event(ChildEvent(kept.child.name, "stopped"))

    def status(self) -> list[ChildStatus]:
        """How each child is; from any thread."""
        return [
            ChildStatus(
                kept.child.name,
                kept.process.pid if kept.process is not None and kept.process.returncode is None else None,
                kept.restarts,
                kept.ready,
            )
            for kept in self._kept
        ]

    def _spawn(self, kept: _Kept) -> None:
        kept.child.before_start()
        if kept.log.exists() and kept.log.stat().st_size > MAX_LOG_BYTES:
            kept.log.replace(kept.log.with_suffix(".log.1"))
        kept.process = spawn(kept.child.command, log=kept.log, env=kept.child.env)
        kept.started_at, kept.restart_at, kept.ready = time.monotonic(), None, False
        self._on_event(ChildEvent(kept.child.name, "started", f"pid {kept.process.pid}"))

    def _check_ready(self, kept: _Kept) -> bool:
        alive = kept.process is not None and kept.process.poll() is None
        if alive and not kept.ready and kept.child.ready():
            kept.ready = True
            self._on_event(ChildEvent(kept.child.name, "ready"))
        return kept.ready and alive

    def _revive(self, kept: _Kept) -> None:
        """Start again what died, after its back-off."""
        if kept.restart_at is not None:
            if time.monotonic() >= kept.restart_at:
                kept.restarts += 1
                self._spawn(kept)
            return
        if kept.process is None or (code := kept.process.poll()) is None:
            return
        signal_group(kept.process, signal.SIGKILL)  # its own children must not hold what the next one needs
        if code == EXIT_CONFIG:
            raise ConfigError(_last_words(kept))
        if time.monotonic() - kept.started_at > HEALTHY_AFTER_S:
            kept.backoff_s = FIRST_BACKOFF_S
        kept.ready, kept.process = False, None
        kept.restart_at = time.monotonic() + kept.backoff_s
        self._on_event(ChildEvent(kept.child.name, "died", f"exit {code}, again in {kept.backoff_s:g} s"))
        kept.backoff_s = min(MAX_BACKOFF_S, kept.backoff_s * 2)


def _last_words(kept: _Kept) -> str:
    """The one line a child wrote before it ended with exit 3."""
    lines = kept.log.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("lookalike: ") if lines else f"{kept.child.name} was started wrongly: see {kept.log}"
