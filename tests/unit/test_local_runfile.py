"""A running `up` is found through its data folder, and only one has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lookalike.local.runfile import RunFile
from streams.errors import ConfigError


def _write(run_file: RunFile, folder: Path) -> None:
    run_file.write(
        bootstrap="127.0.0.1:9092",
        index_socket=folder / "index.sock",
        objects_dir=folder / "objects",
        api_url="http://127.0.0.1:8080",
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Other commands find the addresses of the process that wrote them, as absolute paths."""
    run_file = RunFile(tmp_path / "data")
    with run_file.lock():
        _write(run_file, tmp_path)
        run = RunFile(tmp_path / "data").read()
    assert run is not None
    assert (run.bootstrap, run.api_url) == ("127.0.0.1:9092", "http://127.0.0.1:8080")
    assert (run.index_socket, run.objects_dir) == (tmp_path / "index.sock", tmp_path / "objects")
    assert run.pid == os.getpid()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """The file is its owner's only."""
    run_file = RunFile(tmp_path)
    with run_file.lock():
        _write(run_file, tmp_path)
        assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o600


def test_nothing_runs_in_an_empty_or_missing_folder(tmp_path: Path) -> None:
    """Without a file nothing runs, and looking does not make the folder."""
    assert RunFile(tmp_path).read() is None
    assert RunFile(tmp_path / "missing").read() is None
    assert not (tmp_path / "missing").exists()


def test_it_goes_with_the_run(tmp_path: Path) -> None:
    """When the lock is let go, the file is gone."""
    run_file = RunFile(tmp_path)
    with run_file.lock():
        _write(run_file, tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_a_killed_run_is_not_found(tmp_path: Path) -> None:
    """The file of a process that was killed says nothing, and the folder is free at once."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from lookalike.local.runfile import RunFile\n"
        "folder = Path(sys.argv[1])\n"
        "with RunFile(folder).lock():\n"
        "    RunFile(folder).write(bootstrap='b', index_socket=folder, objects_dir=folder, api_url='u')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert (tmp_path / "run.json").exists()
    assert RunFile(tmp_path).read() is None
    with RunFile(tmp_path).lock():
        assert RunFile(tmp_path).read() is None


def test_another_process_with_the_same_number_is_no_match(tmp_path: Path) -> None:
    """A process that got the dead one's number later is not taken for it."""
    run_file = RunFile(tmp_path)
    with run_file.lock():
        _write(run_file, tmp_path)
        row = json.loads((tmp_path / "run.json").read_text())
        boot, ticks = row["process"].split("/")
        (tmp_path / "run.json").write_text(json.dumps({**row, "process": f"{boot}/{int(ticks) - 1}"}))
        assert run_file.read() is None


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """One line names the process that has the folder and says what to do."""
    run_file = RunFile(tmp_path)
    with run_file.lock():
        _write(run_file, tmp_path)
        with pytest.raises(ConfigError, match=rf"process {os.getpid()}\) uses .*--data"), RunFile(tmp_path).lock():
            pass
        assert run_file.read() is not None


def test_what_is_no_run_file_is_said(tmp_path: Path) -> None:
    """A damaged file is one line that names it."""
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"run\.json is no run file"):
        RunFile(tmp_path).read()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """Where the folder cannot be had, one line says so."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"), RunFile(tmp_path / "file" / "data").lock():
        pass
