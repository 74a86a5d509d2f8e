"""How much a worker takes on: about a second of its own work."""

from __future__ import annotations

from dataclasses import dataclass

from embedder.stages.window import MIN_WINDOW, Window


@dataclass
class ManualClock:
    """Time that moves when told to."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def _finish(window: Window, n: int) -> None:
    window.take(n)
    for _ in range(n):
        window.release()


def test_starts_small_and_is_full_when_taken() -> None:
    """An idle worker takes the smallest window and no more than that."""
    window = Window(max_events=1024, clock=ManualClock())
    assert window.free() == MIN_WINDOW
    window.take(MIN_WINDOW)
    assert window.free() == 0


def test_follows_the_rate() -> None:
    """After a second at 100 events/s the window is a second of them and a quarter more."""
    clock = ManualClock()
    window = Window(max_events=1024, clock=clock)
    _finish(window, 100)
    clock.now_s = 1.0
    assert window.free() == 125


def test_shrinks_when_work_gets_slow() -> None:
    """A slow second takes the window back, but never below what keeps all stages busy."""
    clock = ManualClock()
    window = Window(max_events=1024, clock=clock)
    _finish(window, 400)
    clock.now_s = 1.0
    assert window.free() == 500
    _finish(window, 2)
    clock.now_s = 2.0
    assert window.free() == MIN_WINDOW


def test_grows_within_a_second_when_work_is_quick() -> None:
    """A fast start does not wait for the second to end: the window doubles as soon as it was used up."""
    window = Window(max_events=50, clock=ManualClock())
    _finish(window, MIN_WINDOW)
    assert window.free() == 2 * MIN_WINDOW
    _finish(window, 2 * MIN_WINDOW)
    assert window.free() == 50


def test_what_waits_for_the_index_leaves_room_for_work() -> None:
    """Events whose writes only wait to be durable do not keep the network idle; the total is bounded all the same."""
    window = Window(max_events=40, clock=ManualClock())
    window.take(MIN_WINDOW)
    window.hand_over(10)
    assert window.free() == 10
    window.take(10)
    window.hand_over(MIN_WINDOW)
    assert (window.in_flight, window.free()) == (26, 14), "40 in all, though the window has doubled"


def test_what_was_handed_over_is_counted_once() -> None:
    """The rate is of work done: handing over counts, the release after it does not; a release without it does."""
    clock = ManualClock()
    window = Window(max_events=1024, clock=clock)
    window.take(120)
    window.hand_over(80)
    for _ in range(80):
        window.release(handed_over=True)
    for _ in range(40):
        window.release()
    clock.now_s = 1.0
    assert (window.in_flight, window.free()) == (0, 150)


def test_a_write_taken_back_is_work_again() -> None:
    """A write that the index refused or superseded fills the window until it is handed over anew."""
    window = Window(max_events=1024, clock=ManualClock())
    window.take(MIN_WINDOW)
    window.hand_over(4)
    window.take_back(4)
    assert window.free() == 0


def test_shares_are_of_all_that_is_in_hand() -> None:
    """What a tenant may hold, and bulk while somebody is moved there, grows with what waits for the index."""
    window = Window(max_events=1024, clock=ManualClock())
    window.take(MIN_WINDOW)
    assert (window.size, window.free_bulk()) == (MIN_WINDOW, MIN_WINDOW // 4)
    window.hand_over(8)
    assert (window.size, window.free_bulk()) == (MIN_WINDOW + 8, (MIN_WINDOW + 8) // 4)


def test_bytes_bound_what_is_taken() -> None:
    """As many more as fit, taken to be as large as those in hand; one while there is any room; none beyond."""
    window = Window(max_events=1024, max_bytes=1000, clock=ManualClock())
    window.take(4, n_bytes=400)
    assert window.free() == 6
    window.take(5, n_bytes=590)
    assert window.free() == 1, "10 bytes are left, and the next record may be small"
    window.take(1, n_bytes=50)
    assert window.free() == 0
    window.release(n_bytes=100)
    assert window.free() == 1
