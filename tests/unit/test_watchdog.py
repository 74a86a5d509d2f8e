"""The watchdog: a hung stage ends the process with 70 and says where every thread stands."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from embedder.watchdog import Watchdog


@dataclass
class ManualClock:
    """Time that moves when told to."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def _watchdog(clock: ManualClock) -> tuple[Watchdog, list[str]]:
    acted: list[str] = []
    return Watchdog(limit_s=10.0, on_stuck=acted.append, clock=clock), acted


def test_young_events_are_left_alone() -> None:
    """As long as it is told of young events it does nothing, however long the worker lives."""
    clock = ManualClock()
    watchdog, acted = _watchdog(clock)
    for _ in range(100):
        clock.now_s += 1.0
        watchdog.tell(9.0)
        watchdog.look()
    assert acted == []


def test_old_event_is_acted_on_once() -> None:
    """An event in flight beyond the limit is reported, once."""
    clock = ManualClock()
    watchdog, acted = _watchdog(clock)
    watchdog.tell(10.5)
    watchdog.look()
    watchdog.look()
    assert acted == ["an event is in flight for 10 s"]


def test_silent_poll_thread_is_acted_on() -> None:
    """A poll thread that hangs tells nothing: that is noticed as well."""
    clock = ManualClock()
    watchdog, acted = _watchdog(clock)
    clock.now_s = 11.0
    watchdog.look()
    assert acted == ["the poll thread is silent for 11 s"]


def test_process_ends_with_70_and_the_stack_of_the_hung_thread() -> None:
    """The real thing in a process of its own: exit code 70, and the hung function's name on stderr."""
    program = """
import threading, time
from embedder.watchdog import Watchdog, end_process
def hangs_in_the_network():
    threading.Event().wait()
watchdog = Watchdog(limit_s=0.2, on_stuck=end_process)
watchdog.start()
watchdog.tell(1.0)
hangs_in_the_network()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 70
    assert "hangs_in_the_network" in ended.stderr
