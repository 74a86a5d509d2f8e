"""How a long-running process is asked to end."""

from __future__ import annotations

import signal
import threading


def stop_on_signals() -> threading.Event:
    """Set by SIGTERM or Ctrl-C, which ask for a drain; a second one does not hurry it."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
