"""What runs is started in order, started again when it dies, and never left behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from lookalike.local.supervisor import MAX_FAILED_STARTS, Child, ChildEvent, Happening, Supervisor, delay_s
from streams.errors import ConfigError, DependencyError
from tests.processes import is_gone
from tests.waiting import wait_until

WAIT = "import pathlib, signal, sys; pathlib.Path(sys.argv[1]).touch(); signal.pause()"
"""Says that it is ready, and runs until a signal ends it."""
POLITE = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); {WAIT}"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}\nwhile True: signal.pause()"


class ManualClock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Supervised:
    """A supervisor at work in a thread of its own; what it reported, and what ended it."""

    def __init__(self, children: Sequence[Child], log_dir: Path, *, clock: Callable[[], float] | None = None) -> None:
        self.events: list[ChildEvent] = []
        self.error: BaseException | None = None
        given = {} if clock is None else {"clock": clock}
        self.supervisor = Supervisor(children, log_dir=log_dir, on_event=self.events.append, **given)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.supervisor.run_until(self._stop)
        except (ConfigError, DependencyError) as exc:
            self.error = exc

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def until_ready(self) -> None:
        wait_until(lambda: self.supervisor.all_ready or not self._thread.is_alive())
        assert self.error is None
        assert self.supervisor.all_ready

    def pid(self, name: str) -> int:
        (pid,) = [one.pid for one in self.supervisor.status() if one.name == name]
        assert pid is not None
        return pid

    def restarts(self, name: str) -> int:
        return next(one.restarts for one in self.supervisor.status() if one.name == name)

    def of(self, happening: Happening) -> list[str]:
        return [event.name for event in self.events if event.happening is happening]

    def kill(self, name: str) -> None:
        """kill -9, and wait until the supervisor has seen it."""
        n_died = len(self.of(Happening.DIED))
        os.kill(self.pid(name), signal.SIGKILL)
        wait_until(lambda: len(self.of(Happening.DIED)) > n_died)


MakeChild = Callable[..., Child]


@pytest.fixture
def child(tmp_path: Path) -> MakeChild:
    """Makes a child that runs `code`, with a file as first argument that it touches when it is ready."""

    def make(
        name: str, code: str = WAIT, *, ready: Callable[[], bool] | None = None, stop_s: float = 10.0, **more: object
    ) -> Child:
        flag = tmp_path / f"{name}.ready"
        command = [sys.executable, "-I", "-S", "-c", code, str(flag), str(tmp_path)]
        return Child(name, command, dict(os.environ), ready or flag.exists, stop_s, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"


def _written(path: Path) -> int:
    """The number that a child writes into a file."""
    wait_until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


def test_each_starts_when_the_one_before_is_ready(child: MakeChild, logs: Path) -> None:
    """The second child is not started before the first one says that it is ready."""
    answer = threading.Event()
    asked: list[bool] = []

    def ready() -> bool:
        asked.append(answer.is_set())
        return answer.is_set()

    with Supervised([child("first", ready=ready), child("second")], logs) as running:
        wait_until(lambda: len(asked) >= 3)
        assert [event.name for event in running.events] == ["first"]
        answer.set()
        running.until_ready()
        assert [(event.name, event.happening) for event in running.events] == [
            ("first", Happening.STARTED),
            ("first", Happening.READY),
            ("second", Happening.STARTED),
            ("second", Happening.READY),
        ]


def test_a_stop_need_not_wait_until_all_are_ready(child: MakeChild, logs: Path) -> None:
    """Stopped in the middle of the start, what runs is ended and the rest never starts."""
    with Supervised([child("first", ready=lambda: False), child("second")], logs) as running:
        wait_until(lambda: running.of(Happening.STARTED) == ["first"])
    assert running.error is None
    assert [event.happening for event in running.events] == [Happening.STARTED, Happening.STOPPED]
    assert is_gone(running.events[0].pid)


def test_a_child_that_dies_is_started_again(child: MakeChild, logs: Path) -> None:
    """A killed child runs again with another process, is counted, and the other one is left alone."""
    with Supervised([child("first"), child("second")], logs) as running:
        running.until_ready()
        before = {name: running.pid(name) for name in ("first", "second")}
        running.kill("first")
        wait_until(lambda: running.restarts("first") == 1 and running.supervisor.all_ready)
        assert running.pid("first") != before["first"]
        assert running.pid("second") == before["second"]
        assert running.restarts("second") == 0


def test_the_wait_before_a_restart_doubles_up_to_ten_seconds() -> None:
    """0.2 s, then twice as long each time, never more than 10 s."""
    assert [delay_s(n) for n in range(1, 8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]
    assert delay_s(100_000) == 10.0


def test_the_wait_starts_anew_after_half_a_minute_in_health(child: MakeChild, logs: Path) -> None:
    """Deaths in a row wait longer each; one after 30 s of being ready waits as briefly as the first."""
    clock = ManualClock()
    with Supervised([child("one")], logs, clock=clock) as running:
        for healthy_s in (0.0, 29.0, 29.0, 30.0):
            running.until_ready()
            clock.now_s += healthy_s
            running.kill("one")
            assert not running.supervisor.all_ready
            clock.now_s += 10.0
        deaths = [event.text for event in running.events if event.happening is Happening.DIED]
    waits_s = [text.split(" again in ")[1].split()[0] for text in deaths]
    assert waits_s == ["0.2", "0.4", "0.8", "0.2"]


def test_a_restart_waits_until_its_time(child: MakeChild, logs: Path) -> None:
    """A dead child is not started before its wait is over."""
    clock = ManualClock()
    turns: list[None] = []

    def never() -> bool:  # asked once a turn, so that turns can be counted
        turns.append(None)
        return False

    with Supervised([child("one"), child("other", ready=never)], logs, clock=clock) as running:
        wait_until(lambda: bool(turns))
        running.kill("one")
        seen = len(turns)
        clock.now_s += 0.1
        wait_until(lambda: len(turns) > seen + 2)
        assert running.of(Happening.STARTED).count("one") == 1
        clock.now_s += 0.2
        wait_until(lambda: running.of(Happening.STARTED).count("one") == 2)


def test_a_wrong_configuration_stops_everything_and_is_told(child: MakeChild, logs: Path) -> None:
    """Exit 3 is not tried again: all are stopped, and the error is the last line which that child wrote."""
    wrong = "import sys; sys.stderr.write('loading\\nlookalike: no weights: set X\\n'); sys.exit(3)"
    with Supervised([child("first"), child("second", wrong)], logs) as running:
        running.join()
        assert isinstance(running.error, ConfigError)
        assert str(running.error) == "second: no weights: set X"
        (first,) = [event.pid for event in running.events if event.happening is Happening.STOPPED]
        assert is_gone(first)
        assert running.of(Happening.STARTED) == ["first", "second"]
        assert [one.pid for one in running.supervisor.status()] == [None, None]


def test_a_wrong_configuration_without_a_word_names_the_log(child: MakeChild, logs: Path) -> None:
    """What the log had from an earlier day is not taken for what was said now."""
    logs.mkdir()
    (logs / "one.log").write_text("of an earlier day\n")
    with Supervised([child("one", "raise SystemExit(3)")], logs) as running:
        running.join()
        assert str(running.error) == f"one: exit 3 without a word, see {logs / 'one.log'}"


def test_a_command_that_is_not_there_is_a_wrong_configuration(tmp_path: Path, logs: Path) -> None:
    """What cannot be run at all is told in one line, not tried again."""
    nothing = Child("one", [str(tmp_path / "missing")], {}, lambda: True, 1.0, ready_timeout_s=30.0)
    with Supervised([nothing], logs) as running:
        running.join()
        assert isinstance(running.error, ConfigError)
        assert "missing cannot be run: No such file or directory" in str(running.error)


def test_exit_3_is_no_verdict_while_something_before_it_is_down(child: MakeChild, logs: Path, tmp_path: Path) -> None:
    """A child that calls a dead service a wrong configuration is started again once the service is back."""
    broken = tmp_path / "broken"
    ends_with_3 = f"import pathlib, sys\nif pathlib.Path(sys.argv[2], 'broken').exists(): sys.exit(3)\n{WAIT}"
    (tmp_path / "user.ready").touch()
    service = child("service", ready=lambda: not broken.exists())
    with Supervised([service, child("user", ends_with_3)], logs) as running:
        running.until_ready()
        broken.touch()
        running.kill("user")
        wait_until(lambda: running.of(Happening.DIED).count("user") >= 2)  # the second time by itself, with 3
        assert running.error is None
        broken.unlink()
        running.until_ready()


def test_a_child_that_never_starts_is_given_up(child: MakeChild, logs: Path) -> None:
    """One that dies again and again without ever being ready ends the run, with what it said last."""
    never = child("one", "import sys; print('no such port'); sys.exit(1)", ready=lambda: False, ready_timeout_s=1e9)
    ticks = itertools.count(0.0, 100.0)  # every wait is over at once
    with Supervised([never], logs, clock=lambda: next(ticks)) as running:
        running.join()
        assert isinstance(running.error, DependencyError)
        assert "one does not start (no such port)" in str(running.error)
        assert running.of(Happening.STARTED) == ["one"] * MAX_FAILED_STARTS


def test_a_child_that_never_gets_ready_is_given_up(child: MakeChild, logs: Path) -> None:
    """One that runs but is not ready in its time ends the run; it does not run on."""
    with Supervised([child("one", ready=lambda: False, ready_timeout_s=0.2)], logs) as running:
        running.join()
        assert isinstance(running.error, DependencyError)
        assert "one was not ready in 0.2 s" in str(running.error)
        assert all(is_gone(event.pid) for event in running.events)


def test_a_child_that_hangs_at_a_restart_is_killed_and_started_again(child: MakeChild, logs: Path) -> None:
    """One that was ready before gets another try when its restart does not get ready in time."""
    clock, hangs = ManualClock(), threading.Event()
    one = child("one", ready=lambda: not hangs.is_set(), ready_timeout_s=5.0)
    with Supervised([one], logs, clock=clock) as running:
        running.until_ready()
        hangs.set()
        running.kill("one")
        clock.now_s += 1.0
        wait_until(lambda: running.restarts("one") == 1)
        hanging = running.pid("one")
        clock.now_s += 6.0
        wait_until(lambda: len(running.of(Happening.DIED)) == 2)
        assert is_gone(hanging)
        hangs.clear()
        clock.now_s += 1.0
        running.until_ready()


def test_stopping_goes_in_reverse_order(child: MakeChild, logs: Path) -> None:
    """The last is stopped first, each by SIGTERM and with time to end by itself."""
    with Supervised([child(name, POLITE) for name in ("a", "b", "c")], logs) as running:
        running.until_ready()
        pids = [running.pid(name) for name in ("a", "b", "c")]
    ended = [(event.name, event.text) for event in running.events if event.happening is Happening.STOPPED]
    assert ended == [("c", "exit 0"), ("b", "exit 0"), ("a", "exit 0")]
    assert all(is_gone(pid) for pid in pids)
    assert [one.pid for one in running.supervisor.status()] == [None, None, None]


def test_a_stop_group_is_asked_at_once(child: MakeChild, logs: Path) -> None:
    """Children of one group drain beside each other: each of these ends only when the other was asked, too."""
    until_both = (
        "import os, pathlib, signal, sys, time\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "def asked(*_):\n"
        "    (folder / f'{os.getpid()}.asked').touch()\n"
        "    while len(list(folder.glob('*.asked'))) < 2: time.sleep(0.01)\n"
        "    sys.exit(0)\n"
        f"signal.signal(signal.SIGTERM, asked); {WAIT}"
    )
    with Supervised([child(name, until_both, stop_group="both") for name in ("a", "b")], logs) as running:
        running.until_ready()
    assert [event.text for event in running.events if event.happening is Happening.STOPPED] == ["exit 0", "exit 0"]


def test_a_child_of_a_stop_group_is_asked_once(child: MakeChild, logs: Path) -> None:
    """A second SIGTERM would kill a Python process that shuts down by itself: this one tells of any it gets."""
    asked_twice = (
        "import pathlib, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); pathlib.Path(sys.argv[1]).touch()\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "sys.exit(0 if signal.sigtimedwait([signal.SIGTERM], 0.5) is None else 3)"
    )
    group = [child("slow", asked_twice, stop_group="both"), child("quick", POLITE, stop_group="both")]
    with Supervised(group, logs) as running:
        running.until_ready()
    assert [event.text for event in running.events if event.happening is Happening.STOPPED] == ["exit 0", "exit 0"]


def test_a_stubborn_child_is_killed_with_all_it_started(child: MakeChild, logs: Path, tmp_path: Path) -> None:
    """What ignores SIGTERM is killed after its time, and so is the process it started."""
    parent = (
        "import os, pathlib, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if (pid := os.fork()) > 0: pathlib.Path(sys.argv[2], 'grandchild').write_text(str(pid))\n"
        f"{STUBBORN}"
    )
    with Supervised([child("one", parent, stop_s=0.1)], logs) as running:
        running.until_ready()
        both = [running.pid("one"), _written(tmp_path / "grandchild")]
    assert running.events[-1].text == "exit -9"
    wait_until(lambda: all(is_gone(pid) for pid in both))


def test_what_a_dead_child_started_does_not_live_on(child: MakeChild, logs: Path, tmp_path: Path) -> None:
    """When a child is killed, the processes it had started are killed before it is started again."""
    parent = (
        "import os, pathlib, sys\n"
        "if (pid := os.fork()) > 0: pathlib.Path(sys.argv[2], f'of-{os.getpid()}').write_text(str(pid))\n"
        f"{WAIT}"
    )
    with Supervised([child("one", parent)], logs) as running:
        running.until_ready()
        grandchild = _written(tmp_path / f"of-{running.pid('one')}")
        running.kill("one")
        wait_until(lambda: is_gone(grandchild))


def test_a_reporter_that_fails_leaves_nothing_behind(child: MakeChild, logs: Path) -> None:
    """Where what is told cannot be told, as to a closed pipe, every child is stopped all the same."""
    told: list[ChildEvent] = []

    def closed(event: ChildEvent) -> None:
        told.append(event)
        if len(told) > 3:
            raise BrokenPipeError

    supervisor = Supervisor([child("a"), child("b")], log_dir=logs, on_event=closed)
    with pytest.raises(BrokenPipeError):
        supervisor.run_until(threading.Event())
    assert len({event.pid for event in told}) == 2
    assert all(is_gone(event.pid) for event in told)


def test_nothing_survives_a_supervisor_that_is_killed(logs: Path, tmp_path: Path) -> None:
    """After kill -9 of the supervising process the kernel ends every child, also one that ignores signals."""
    flags = [str(tmp_path / name) for name in ("a", "b")]
    program = (
        "import sys, threading, os\n"
        "from pathlib import Path\n"
        "from lookalike.local.supervisor import Child, Supervisor\n"
        "def child(flag):\n"
        f"    command = [sys.executable, '-I', '-S', '-c', {STUBBORN!r}, flag]\n"
        "    return Child(Path(flag).name, command, dict(os.environ), Path(flag).exists, 1.0)\n"
        "told = lambda event: print(event.happening, event.pid, flush=True)\n"
        f"children = [child(flag) for flag in {flags!r}]\n"
        f"Supervisor(children, log_dir=Path({str(logs)!r}), on_event=told).run_until(threading.Event())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        pids = [int(pid) for what, pid in _words(killed.stdout, 4) if what == "ready"]
        assert len(pids) == 2
        assert not any(is_gone(pid) for pid in pids)
        killed.kill()
    wait_until(lambda: all(is_gone(pid) for pid in pids))


def _words(lines: Iterator[str], n: int) -> Iterator[list[str]]:
    for line in itertools.islice(lines, n):
        yield line.split()


def test_a_log_is_appended_to_and_set_aside_when_large(child: MakeChild, logs: Path) -> None:
    """A start keeps what the log has, unless that is more than 10 MB: then it becomes NAME.log.1."""
    logs.mkdir()
    (logs / "small.log").write_text("before\n")
    (logs / "large.log").write_bytes(b"x" * 10_000_001)
    says = f"print('now', flush=True)\n{WAIT}"
    with Supervised([child("small", says), child("large", says)], logs) as running:
        running.until_ready()
    assert (logs / "small.log").read_text() == "before\nnow\n"
    assert (logs / "large.log").read_text() == "now\n"
    assert (logs / "large.log.1").stat().st_size == 10_000_001
