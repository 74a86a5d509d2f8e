"""How late the event loop is: what a callback waits for that is due now."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

LOOK_EVERY_S = 0.25
KEPT = 240
"""A minute of looks."""


class LoopLag:
    """Looks four times a second how late it is woken. A loop that a thread's work or a long callback holds is late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._late_s: deque[float] = deque(maxlen=KEPT)

    @property
    def worst_s(self) -> float:
        """The latest wake-up within the last minute, in seconds; 0 before the first."""
        return max(self._late_s, default=0.0)

    def woken(self, *, due: float) -> None:
        """It was to be woken at `due`, and is now."""
        self._late_s.append(max(0.0, self._clock() - due))

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            due = self._clock() + LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)
            self.woken(due=due)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look within the block."""
        task = asyncio.ensure_future(self.watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
