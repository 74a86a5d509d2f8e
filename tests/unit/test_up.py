"""What `up` refuses before it starts anything, and how a signal ends it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lookalike import cli
from lookalike.local.runfile import RunFile
from lookalike.local.up import UpOptions, start
from lookalike.settings import read_settings
from streams.errors import ConfigError
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LOOKALIKE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def _started(data: Path, *, port: int = 0, workers: int = 1) -> None:
    start(UpOptions(settings=read_settings(), data=data, port=port, workers=workers))


def test_a_taken_port_is_one_line_and_exit_3(tmp_path: Path, taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found before Kafka is downloaded or started, and the folder is free again afterwards."""
    assert cli.run(["up", "--data", str(tmp_path), "--port", str(taken)]) == 3
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert f"port {taken} of 127.0.0.1 is taken" in shown.err
    assert not (tmp_path / "kafka").exists()
    with RunFile(tmp_path).lock():
        pass


def test_too_little_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how much there is and how much is needed."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=900_000_000))
    with pytest.raises(ConfigError, match=r"too little disk: 900 MB free .* 1000 MB needed"):
        _started(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file where the folder should be, as an example of no permission that holds for root as well."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        _started(tmp_path / "file" / "data")


def test_a_second_up_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Two brokers on one log would destroy it."""
    with RunFile(tmp_path).lock(), pytest.raises(ConfigError, match="another `lookalike up`"):
        _started(tmp_path)


def test_a_qdrant_server_is_not_for_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is started, and what to start instead."""
    monkeypatch.setenv("LOOKALIKE_QDRANT_URL", "http://127.0.0.1:6333")
    with pytest.raises(ConfigError, match="unset LOOKALIKE_QDRANT_URL"):
        _started(tmp_path)
    assert not (tmp_path / "kafka").exists()


def test_one_metrics_port_for_two_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second worker could only die of it, again and again."""
    monkeypatch.setenv("LOOKALIKE_WORKER_METRICS_PORT", "9464")
    with pytest.raises(ConfigError, match="LOOKALIKE_WORKER_METRICS_PORT is one port"):
        _started(tmp_path, workers=2)


CHILD = """
import pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: sys.exit((time.sleep(0.5), (here / "ended").touch())[0]))
(here / "ready").touch()
while True:
    signal.pause()
"""

PARENT = """
import os, pathlib, sys
from contextlib import ExitStack
from lookalike.local.children import Parts
from lookalike.local.supervisor import Child
from lookalike.local.up import Running, one_interrupt
from lookalike.settings import read_settings
here = pathlib.Path(sys.argv[1])
parts = Parts(read_settings(), here, None, "", 1, here / "socket", "exact", here, 1, 1)
command = [sys.executable, "-c", sys.argv[2], str(here)]
child = Child("child", command, dict(os.environ), (here / "ready").exists, stop_timeout_s=20)
cleanup = ExitStack()
cleanup.callback((here / "cleaned").touch)
running = Running(parts=parts, children=[child], log_dir=here, on_event=lambda _: None, cleanup=cleanup)
with one_interrupt(), running:
    running.start()
    (here / "serving").touch()
    try:
        running.wait()
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_children_end_in_their_own_time(tmp_path: Path, number: signal.Signals) -> None:
    """One that takes half a second to end is waited for, and a second signal does not cut it short."""
    running = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), CHILD], start_new_session=True)
    try:
        wait_until((tmp_path / "serving").exists, timeout_s=60)
        running.send_signal(number)
        running.send_signal(number)
        assert running.wait(30) == 0
    finally:
        running.kill()
        running.wait()
    assert (tmp_path / "ended").exists()
    assert (tmp_path / "cleaned").exists()
