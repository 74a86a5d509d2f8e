"""Whether what a process stands on answers: asked for readiness, with how long it took and what it said last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from streams.errors import LookalikeError

Check = Callable[[], object]
"""Returns where all is well; raises a LookalikeError that says what is wrong. At most a second or two."""


class Checks:
    """Asks each in turn; remembers each one's last error, so that a flapping one shows. Thread-safe."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        optional: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`optional` ones are shown and do not decide."""
        self._checks = checks
        self._optional = optional
        self._clock = clock
        self._lock = threading.Lock()
        self._last_errors: dict[str, tuple[float, str]] = {}

    def ask(self) -> tuple[bool, dict[str, Any]]:
        """Whether everything required answers, and by name what is known of each."""
        with self._lock:  # two probes at once would only ask the same twice
            found = {name: self._ask(name, check) for name, check in self._checks.items()}
        well = all(one["state"] == "ok" or not one["required"] for one in found.values())
        return well, {"dependencies": found}

    def _ask(self, name: str, check: Check) -> dict[str, Any]:
        started, error = self._clock(), None
        try:
            check()
        except LookalikeError as exc:
            error = str(exc)
        now = self._clock()
        if error is not None:
            self._last_errors[name] = (now, error)
        at, last_error = self._last_errors.get(name, (None, None))
        return {
            "state": "ok" if error is None else "failed",
            "required": name not in self._optional,
            "latency_ms": round((now - started) * 1000, 3),
            "last_error": last_error,
            "last_error_s_ago": None if at is None else round(now - at, 1),
        }
