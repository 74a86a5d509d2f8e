"""Where a running `lookalike up` answers, written into its data folder for every other command to find."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streams.errors import ConfigError


class Run(msgspec.Struct, frozen=True):
    """One run: addresses without a slash at the end, absolute paths, `started_at_s` since 1970.

    `process_started` is the kernel's start time of `pid`, so that another process which got the same
    number later is not taken for it.
    """

    pid: int
    process_started: int
    bootstrap: str
    index_socket: Path
    objects_dir: Path
    api_url: str
    started_at_s: float


class RunFile:
    """``run.json`` and ``up.lock`` in a data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "run.json"
        self._lock_path = data_dir / "up.lock"

    def write(self, run: Run) -> None:
        """Readers see the old file or the new one; nobody but the owner may read it."""
        scratch = self._path.with_suffix(".new")
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(run, enc_hook=str))
        scratch.replace(self._path)

    def remove(self) -> None:
        """The run has ended; twice is harmless."""
        self._path.unlink(missing_ok=True)

    def read(self) -> Run | None:
        """The run that goes on now; None where there is none, or where it died without a word."""
        try:
            run = msgspec.json.decode(self._path.read_bytes(), type=Run, dec_hook=lambda kind, value: kind(value))
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as exc:
            raise ConfigError(
                f"{self._path} cannot be read ({exc}): remove it, and start `lookalike up` again"
            ) from exc
        return run if process_started(run.pid) == run.process_started else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for as long as this process lives.

        Raises:
            ConfigError: another `up` has it, or it cannot be written.
        """
        try:
            lock = self._lock_path.open("w")
        except OSError as exc:
            raise ConfigError(f"{self._lock_path} cannot be written: {exc.strerror or exc}") from exc
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise ConfigError(
                    f"another `lookalike up` has {self._path.parent}: stop it, or name another folder with --data"
                ) from exc
            yield


def process_started(pid: int) -> int | None:
    """The start time of a process in the kernel's ticks since boot, None where there is none (proc(5), field 22)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] == "Z" else int(after_name[19])
