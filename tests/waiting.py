"""Waiting for something to become true, with a deadline instead of a guess."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Return when `condition` holds; AssertionError when it does not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the awaited condition did not come true"
        pause.wait(0.002)
