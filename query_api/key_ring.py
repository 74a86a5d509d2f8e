"""The keys that hold now: a thread looks at the file about once a second, so no request waits for a disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from query_api.keys import Key, find, read_keys
from streams.errors import ConfigError, DependencyError
from streams.threads import name_this_thread

EVERY_S = 1.0
"""A revoked key is refused this much later at most; container platforms themselves take longer to swap a file."""

_log = structlog.get_logger("query_api")

Stamp = tuple[int, int, int] | None


def _utc_now() -> datetime:
    return datetime.now(UTC)


class KeyRing:
    """Thread-safe. A file that becomes unreadable changes nothing: the keys read last hold, and `check` tells."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = _utc_now, every_s: float = EVERY_S) -> None:
        """Reads the file once. Raises ConfigError where it cannot be read."""
        self._path = path
        self._now = now
        self._every_s = every_s
        self._stamp = _stamp(path)
        self._keys = read_keys(path)
        self._error: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the file from now on. Twice is harmless."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, name="keys", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop watching; what was read last holds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def find(self, text: str) -> Key | None:
        """The key of this text, where it holds now. Never blocks."""
        return find(self._keys, text, now=self._now())

    def check(self) -> None:
        """DependencyError where the file cannot be read any more."""
        if self._error is not None:
            raise DependencyError("keys", self._error)

    def next_expiry(self) -> float | None:
        """When the key that expires next does, in seconds since 1970; None where none will."""
        now = self._now()
        ends = [key.expires_at for key in self._keys.values() if key.expires_at is not None and key.expires_at > now]
        return min(ends).timestamp() if ends else None

    def look(self) -> None:
        """Read the file again if it is another one than before."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except ConfigError as exc:
            self._error = str(exc)
            _log.error("keys unreadable, those read before hold", error=self._error)
        else:
            self._error = None
            _log.info("keys read", path=str(self._path), n_keys=len(self._keys))

    def _watch(self) -> None:
        name_this_thread("keys")
        while not self._stop.wait(self._every_s):
            self.look()


def _stamp(path: Path) -> Stamp:
    """What changes whenever the file does, also where a link is turned to another one; None for no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)
