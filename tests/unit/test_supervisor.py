"""The supervisor: started in order, restarted after a death, stopped in reverse, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from lookalike.local import supervisor as supervising
from lookalike.local.processes import free_ports, port_is_free, spawn
from lookalike.local.supervisor import Child, ChildEvent, Supervisor
from streams.errors import ConfigError, DependencyError
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(60)

WAITS = "import signal; signal.pause()"


def _python(program: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(program)]


def _lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _always() -> bool:
    return True


@dataclass
class Kept:
    """A supervisor that runs in a thread of its own, with what it told."""

    supervisor: Supervisor
    events: list[ChildEvent] = field(default_factory=list)
    failure: list[Exception] = field(default_factory=list)

    def told(self, *what: str) -> list[tuple[str, str]]:
        """Names with what happened to them, in order; only of these kinds where any are named."""
        return [(event.name, event.what) for event in list(self.events) if not what or event.what in what]

    def pid(self, name: str) -> int | None:
        """The child's process as the supervisor tells it."""
        return next(status.pid for status in self.supervisor.status() if status.name == name)

    def ready(self, name: str) -> bool:
        """Whether the supervisor says so."""
        return next(status.ready for status in self.supervisor.status() if status.name == name)


@contextmanager
def _running(tmp_path: Path, *children: Child) -> Iterator[Kept]:
    """Start, keep, and at the end stop, on one thread as the product does."""
    events: list[ChildEvent] = []
    kept = Kept(Supervisor(children, log_dir=tmp_path / "logs", on_event=events.append), events)
    stop = threading.Event()

    def run() -> None:
        try:
            kept.supervisor.start(stop)
            kept.supervisor.run_until(stop)
        except (ConfigError, DependencyError) as exc:
            kept.failure.append(exc)
        stop.wait()
        kept.supervisor.stop()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield kept
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off and ticks of milliseconds."""
    monkeypatch.setattr(supervising, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(supervising, "TICK_S", 0.002)


def _file_is(path: Path) -> Callable[[], bool]:
    return path.exists


# ---- order ---------------------------------------------------------------------------------------


def test_children_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    """Each when the one before is ready; at the end no process is left."""
    gate = tmp_path / "gate"
    with _running(
        tmp_path,
        Child("broker", _python(WAITS), ready=_file_is(gate)),
        Child("index", _python(WAITS), ready=_always),
        Child("worker", _python(WAITS), ready=_always),
    ) as kept:
        wait_until(lambda: kept.pid("broker") is not None)
        assert kept.told() == [("broker", "started")]
        gate.touch()
        wait_until(lambda: kept.ready("worker"))
        pids = [status.pid for status in kept.supervisor.status()]
    assert kept.told() == [
        ("broker", "started"),
        ("broker", "ready"),
        ("index", "started"),
        ("index", "ready"),
        ("worker", "started"),
        ("worker", "ready"),
        ("worker", "stopped"),
        ("index", "stopped"),
        ("broker", "stopped"),
    ]
    assert not any(pid is None or _lives(pid) for pid in pids)
    assert [(status.pid, status.ready) for status in kept.supervisor.status()] == [(None, False)] * 3


def test_a_stop_while_a_child_gets_ready_ends_the_start(tmp_path: Path) -> None:
    """Ctrl-C need not wait for the broker; the children behind it are never started."""
    with _running(
        tmp_path,
        Child("broker", _python(WAITS), ready=lambda: False),
        Child("index", _python(WAITS), ready=_always),
    ) as kept:
        wait_until(lambda: kept.pid("broker") is not None)
    assert kept.told() == [("broker", "started"), ("broker", "stopped")]
    assert not kept.failure


def test_a_child_that_never_gets_ready_is_told(tmp_path: Path) -> None:
    """With its name and where its log is; stopping still works."""
    with _running(tmp_path, Child("api", _python(WAITS), ready=lambda: False, ready_timeout_s=0.1)) as kept:
        wait_until(lambda: bool(kept.failure))
    [failure] = kept.failure
    assert isinstance(failure, DependencyError)
    assert failure.dependency == "api"
    assert str(tmp_path / "logs/api.log") in failure.message


def test_environment_and_output_are_the_childs_own(tmp_path: Path) -> None:
    """Both outputs go to its log, appended; the environment is what was given."""
    program = "import os, sys; print(os.environ['WORD']); print('error', file=sys.stderr, flush=True); " + WAITS
    log = tmp_path / "logs/api.log"
    log.parent.mkdir()
    log.write_text("before\n")
    with _running(tmp_path, Child("api", _python(program), ready=_always, env={"WORD": "hello"})):
        wait_until(lambda: log.read_text() == "before\nhello\nerror\n")


# ---- deaths --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    """With what comes before each start; others are left alone."""
    starts: list[int] = []
    with _running(
        tmp_path,
        Child("index", _python(WAITS), ready=_always),
        Child("worker", _python(WAITS), ready=_always, before_start=lambda: starts.append(1)),
    ) as kept:
        wait_until(lambda: kept.ready("worker"))
        index, first = kept.pid("index"), kept.pid("worker")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: kept.pid("worker") not in (None, first) and kept.ready("worker"))
        assert kept.pid("index") == index
        assert [status.restarts for status in kept.supervisor.status()] == [0, 1]
        assert len(starts) == 2
    assert ("worker", "died") in kept.told()


@pytest.mark.usefixtures("quick")
def test_the_pause_doubles_while_a_child_keeps_dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to its limit; what the operator reads says how long."""
    monkeypatch.setattr(supervising, "MAX_BACKOFF_S", 0.03)
    with _running(tmp_path, Child("worker", _python("raise SystemExit(1)"), ready=lambda: False)) as kept:
        wait_until(lambda: len(kept.told("died")) >= 4)
    pauses = [event.detail for event in kept.events if event.what == "died"]
    assert pauses[:4] == [f"exit 1, again in {pause} s" for pause in ("0.01", "0.02", "0.03", "0.03")]


@pytest.mark.usefixtures("quick")
def test_the_pause_begins_anew_after_a_healthy_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A death a day is not a crash loop."""
    monkeypatch.setattr(supervising, "HEALTHY_AFTER_S", 0.0)
    with _running(tmp_path, Child("worker", _python("raise SystemExit(1)"), ready=lambda: False)) as kept:
        wait_until(lambda: len(kept.told("died")) >= 3)
    assert {event.detail for event in kept.events if event.what == "died"} == {"exit 1, again in 0.01 s"}


@pytest.mark.usefixtures("quick")
def test_a_death_during_the_start_of_another_is_mended(tmp_path: Path) -> None:
    """A worker that waits for the broker gets ready only when the broker is started again."""
    pids: list[int | None] = []
    kept: Kept

    def broker_is_another() -> bool:
        now = kept.pid("broker")
        if not pids and now is not None:
            pids.append(now)
            os.kill(now, signal.SIGKILL)
        return now is not None and now not in pids

    with _running(
        tmp_path,
        Child("broker", _python(WAITS), ready=_always),
        Child("worker", _python(WAITS), ready=lambda: broker_is_another(), ready_timeout_s=20),
    ) as kept:
        wait_until(lambda: kept.ready("worker") or bool(kept.failure))
        assert not kept.failure


@pytest.mark.usefixtures("quick")
def test_a_child_that_was_started_wrongly_is_not_started_again(tmp_path: Path) -> None:
    """Exit 3: its last line is the operator's; at the start and later alike."""
    program = "import sys; print('noise'); print('lookalike: set LOOKALIKE_X to a folder'); sys.exit(3)"
    with _running(tmp_path, Child("worker", _python(program), ready=lambda: False)) as kept:
        wait_until(lambda: bool(kept.failure))
    [failure] = kept.failure
    assert isinstance(failure, ConfigError)
    assert str(failure) == "set LOOKALIKE_X to a folder"
    assert kept.supervisor.status()[0].restarts == 0


@pytest.mark.usefixtures("quick")
def test_a_child_that_says_nothing_of_its_wrong_start_has_its_log_named(tmp_path: Path) -> None:
    """There is always a line for the operator."""
    with _running(tmp_path, Child("worker", _python("raise SystemExit(3)"), ready=lambda: False)) as kept:
        wait_until(lambda: bool(kept.failure))
    assert str(tmp_path / "logs/worker.log") in str(kept.failure[0])


# ---- ends ----------------------------------------------------------------------------------------


def test_a_stubborn_child_is_killed(tmp_path: Path) -> None:
    """After its time and not before it was asked; the supervisor tells that it had to."""
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    log = tmp_path / "logs/worker.log"
    with _running(tmp_path, Child("worker", _python(program), ready=_always, stop_timeout_s=0.1)) as kept:
        wait_until(lambda: log.exists() and log.read_text() == "deaf\n")
        pid = kept.pid("worker")
        assert pid is not None
    assert kept.told("killed", "stopped") == [("worker", "killed"), ("worker", "stopped")]
    assert not _lives(pid)


def test_a_child_may_finish_its_work(tmp_path: Path) -> None:
    """SIGTERM comes first, and its own end is awaited."""
    program = """
        import signal, sys
        def end(*_):
            print("finished", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("ready", flush=True)
        while True:
            signal.pause()
    """
    log = tmp_path / "logs/worker.log"
    with _running(tmp_path, Child("worker", _python(program), ready=_always, stop_timeout_s=30)) as kept:
        wait_until(lambda: log.exists() and log.read_text() == "ready\n")
    assert log.read_text() == "ready\nfinished\n"
    assert ("worker", "killed") not in kept.told()


WITH_GRANDCHILD = """
    import signal, subprocess, sys
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    print(child.pid, flush=True)
    signal.pause()
"""


def _grandchild(log: Path, line: int = 0) -> int:
    wait_until(lambda: log.exists() and log.read_text().count("\n") > line)
    return int(log.read_text().splitlines()[line])


def test_grandchildren_end_with_a_stop(tmp_path: Path) -> None:
    """What a child started in its group does not stay behind."""
    with _running(tmp_path, Child("worker", _python(WITH_GRANDCHILD), ready=_always)):
        grandchild = _grandchild(tmp_path / "logs/worker.log")
        assert _lives(grandchild)
    wait_until(lambda: not _lives(grandchild), timeout_s=20)


@pytest.mark.usefixtures("quick")
def test_grandchildren_end_with_a_death(tmp_path: Path) -> None:
    """Before the next one starts: they would hold its port or its lock."""
    with _running(tmp_path, Child("worker", _python(WITH_GRANDCHILD), ready=_always)) as kept:
        log = tmp_path / "logs/worker.log"
        first = _grandchild(log)
        pid = kept.pid("worker")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        second = _grandchild(log, line=1)
        wait_until(lambda: not _lives(first), timeout_s=20)
        assert _lives(second)


def test_stop_twice_and_before_a_start_is_harmless(tmp_path: Path) -> None:
    """Whoever cleans up need not know how far it came."""
    supervisor = Supervisor([Child("worker", _python(WAITS), ready=_always)], log_dir=tmp_path)
    supervisor.stop()
    supervisor.start(threading.Event())
    [status] = supervisor.status()
    supervisor.stop()
    supervisor.stop()
    assert status.pid is not None
    assert not _lives(status.pid)


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """kill -9 of `lookalike up` frees its ports and files at once."""
    program = f"""
        import sys, threading
        from pathlib import Path
        from lookalike.local.supervisor import Child, Supervisor
        deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
        children = [Child(name, [sys.executable, "-c", deaf], ready=lambda: True) for name in "ab"]
        supervisor = Supervisor(children, log_dir=Path({str(tmp_path)!r}))
        supervisor.start(threading.Event())
        print(*(status.pid for status in supervisor.status()), flush=True)
        supervisor.run_until(threading.Event())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(_lives(pid) for pid in pids)
        parent.kill()
    wait_until(lambda: not any(_lives(pid) for pid in pids), timeout_s=20)


def test_a_large_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a start: one older log is kept, the new one begins empty."""
    monkeypatch.setattr(supervising, "MAX_LOG_BYTES", 10)
    log = tmp_path / "logs/worker.log"
    log.parent.mkdir()
    log.write_text("much more than ten bytes")
    with _running(tmp_path, Child("worker", _python("print('new', flush=True); " + WAITS), ready=_always)):
        wait_until(lambda: log.read_text() == "new\n")
    assert log.with_name("worker.log.1").read_text() == "much more than ten bytes"


# ---- ports and processes -------------------------------------------------------------------------


def test_free_ports_are_different_and_free() -> None:
    """A port with a listener is not."""
    import socket

    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(port_is_free(port) for port in ports)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not port_is_free(listening.getsockname()[1])


def test_a_spawned_process_is_apart_from_the_terminal(tmp_path: Path) -> None:
    """Its own session: Ctrl-C reaches the supervisor, which stops it in order."""
    with spawn(_python(WAITS), log=tmp_path / "log") as process:
        try:
            assert os.getsid(process.pid) == process.pid
            assert os.getpgid(process.pid) == process.pid
        finally:
            process.kill()
