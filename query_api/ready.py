"""Whether everything that a request needs answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from query_api.deps import Check
from query_api.threads import Threads
from streams.errors import LookalikeError

CHECK_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of one check."""

    error: str | None
    latency_s: float


class Readiness:
    """Asks every dependency at once; remembers each one's last error, so that a flapping one shows."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        optional: Collection[str],
        threads: Threads,
        clock: Callable[[], float],
        deadline_s: float = CHECK_DEADLINE_S,
    ) -> None:
        """`optional` ones are shown and do not decide: the API can do most of its work without them."""
        self._checks = checks
        self._optional = optional
        self._threads = threads
        self._clock = clock
        self._deadline_s = deadline_s
        self._last_errors: dict[str, tuple[float, str]] = {}

    async def ask(self) -> tuple[bool, dict[str, Any]]:
        """Whether the API is ready, and what is known of each dependency, by name."""
        results = await asyncio.gather(*(self._check(check) for check in self._checks.values()))
        by_name = dict(zip(self._checks, results, strict=True))
        ready = all(checked.error is None for name, checked in by_name.items() if name not in self._optional)
        return ready, {name: self._describe(name, checked) for name, checked in by_name.items()}

    async def _check(self, check: Check) -> Checked:
        started = self._clock()
        error: str | None = None
        try:
            await self._threads.run(check, deadline_s=self._deadline_s)
        except TimeoutError:
            error = f"no answer within {self._deadline_s:g} s"
        except LookalikeError as exc:
            error = str(exc)
        return Checked(error, self._clock() - started)

    def _describe(self, name: str, checked: Checked) -> dict[str, Any]:
        now = self._clock()
        if checked.error is not None:
            self._last_errors[name] = (now, checked.error)
        at, last_error = self._last_errors.get(name, (None, None))
        return {
            "state": "ok" if checked.error is None else "failed",
            "required": name not in self._optional,
            "latency_ms": round(checked.latency_s * 1000, 3),
            "last_error": last_error,
            "last_error_s_ago": None if at is None else round(now - at, 1),
        }
