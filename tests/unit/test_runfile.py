"""The run file: what other commands find of a running `lookalike up`, and what they never take for one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lookalike.local.runfile import Run, RunFile, process_started
from streams.errors import ConfigError


def _run(folder: Path, *, pid: int | None = None, started: int | None = None) -> Run:
    mine = process_started(os.getpid())
    assert mine is not None
    return Run(
        pid=pid or os.getpid(),
        process_started=mine if started is None else started,
        bootstrap="127.0.0.1:9092",
        index_socket=folder / "index.sock",
        objects_dir=folder / "objects",
        api_url="http://127.0.0.1:8000",
        started_at_s=1_800_000_000.5,
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """With its types, paths included; a second run replaces the first."""
    file = RunFile(tmp_path)
    file.write(_run(tmp_path / "old"))
    file.write(_run(tmp_path))
    assert file.read() == _run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_without_a_file_there_is_no_run(tmp_path: Path) -> None:
    """Also after its removal, also in a folder that does not exist; to remove it twice is harmless."""
    file = RunFile(tmp_path)
    assert file.read() is None
    file.write(_run(tmp_path))
    file.remove()
    file.remove()
    assert file.read() is None
    assert RunFile(tmp_path / "nowhere").read() is None


def test_nobody_but_its_owner_reads_it(tmp_path: Path) -> None:
    """Whatever the umask says, and also where an older scratch file was open to all."""
    (tmp_path / "run.new").touch(0o666)
    (tmp_path / "run.new").chmod(0o666)
    before = os.umask(0)
    try:
        RunFile(tmp_path).write(_run(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o600


def test_a_run_that_died_is_none(tmp_path: Path) -> None:
    """kill -9 leaves the file behind; as a zombie it is dead, too."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        started = process_started(child.pid)
        assert started is not None
        file = RunFile(tmp_path)
        file.write(_run(tmp_path, pid=child.pid, started=started))
        assert file.read() is not None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
        assert file.read() is None
    assert file.read() is None


def test_a_process_that_got_the_number_later_is_not_the_run(tmp_path: Path) -> None:
    """The same pid with another start time is somebody else."""
    file = RunFile(tmp_path)
    mine = process_started(os.getpid())
    assert mine is not None
    file.write(_run(tmp_path, started=mine - 1))
    assert file.read() is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"pid": "one"}', b'{"pid": 1}', b'{"pid": 1e400}']
)
def test_a_broken_file_is_told(tmp_path: Path, content: bytes) -> None:
    """One line that says which file to remove."""
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ConfigError, match="run.json") as caught:
        RunFile(tmp_path).read()
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_files_place_is_told(tmp_path: Path) -> None:
    """The system's own words become one line of ours."""
    (tmp_path / "run.json").mkdir()
    with pytest.raises(ConfigError, match="run.json"):
        RunFile(tmp_path).read()


def test_a_second_up_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """While the first one holds it, and no longer; another folder is free."""
    (tmp_path / "other").mkdir()
    with RunFile(tmp_path).locked():
        with pytest.raises(ConfigError, match=r"another `lookalike up`.*--data"), RunFile(tmp_path).locked():
            pass
        with RunFile(tmp_path / "other").locked():
            pass
    with RunFile(tmp_path).locked():
        pass


def test_a_killed_up_holds_no_lock(tmp_path: Path) -> None:
    """Not through a child that it left behind, either: the lock is the process's own."""
    program = f"""
        import subprocess, sys
        from pathlib import Path
        from lookalike.local.runfile import RunFile
        with RunFile(Path({str(tmp_path)!r})).locked():
            child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            print("locked", flush=True)
            child.wait()
    """
    first = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError), RunFile(tmp_path).locked():
            pass
        first.kill()
        first.wait()
        with RunFile(tmp_path).locked():
            pass


def test_a_folder_that_cannot_be_locked_is_told(tmp_path: Path) -> None:
    """It does not exist, or cannot be written."""
    with pytest.raises(ConfigError, match="cannot be written"), RunFile(tmp_path / "nowhere").locked():
        pass


def test_a_start_time_tells_processes_apart() -> None:
    """Of a process that lives it is always the same; numbers that nobody has have none."""
    assert process_started(os.getpid()) == process_started(os.getpid())
    assert process_started(2**22 + 1) is None
    assert process_started(0) is None


def test_a_strange_process_name_does_not_confuse(tmp_path: Path) -> None:
    """The name stands in parentheses before the start time, and may hold parentheses and spaces itself."""
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as child:
        found = process_started(child.pid)
        child.kill()
    mine = process_started(os.getpid())
    assert found is not None
    assert mine is not None
    assert found >= mine
