"""DATA/run.json: where a running `lookalike up` answers, for the commands beside it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streams.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Run:
    """One running `up`: its process and its addresses; `started_at` is in seconds since 1970."""

    bootstrap: str
    index_socket: Path
    objects_dir: Path
    api_url: str
    pid: int
    started_at: float


class RunFile:
    """The run file of one data folder, and the lock that lets only one `up` use the folder."""

    def __init__(self, data_dir: Path) -> None:
        """Touches nothing; the folder need not be there."""
        self._dir = data_dir.resolve()
        self._path = self._dir / "run.json"

    def read(self) -> Run | None:
        """The `up` that runs on this folder; None where none does, also when one was killed and left its file.

        Raises:
            ConfigError: the file belongs to another user, or is no run file.
        """
        try:
            row = json.loads(self._path.read_text())
            run = Run(
                bootstrap=row["bootstrap"],
                index_socket=Path(row["index_socket"]),
                objects_dir=Path(row["objects_dir"]),
                api_url=row["api_url"],
                pid=row["pid"],
                started_at=row["started_at"],
            )
            return run if row["process"] == _identity(run.pid) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise ConfigError(f"{self._path} cannot be read: {exc.strerror or exc}") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f"{self._path} is no run file: remove it") from exc

    def write(self, *, bootstrap: str, index_socket: Path, objects_dir: Path, api_url: str) -> Run:
        """Say where this process's services answer; under :meth:`lock`. Readable by this user only.

        Raises:
            ConfigError: the folder cannot be written.
        """
        run = Run(bootstrap, index_socket.resolve(), objects_dir.resolve(), api_url, os.getpid(), time.time())
        row = {
            "bootstrap": run.bootstrap,
            "index_socket": str(run.index_socket),
            "objects_dir": str(run.objects_dir),
            "api_url": run.api_url,
            "pid": run.pid,
            "process": _identity(run.pid),
            "started_at": run.started_at,
        }
        try:
            with tempfile.NamedTemporaryFile("w", dir=self._dir, prefix="run.", delete=False) as part:  # mode 600
                json.dump(row, part, indent=1)
            Path(part.name).replace(self._path)
        except OSError as exc:
            raise _unwritable(self._dir, exc) from exc
        return run

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Makes the folder where it is missing; while held, no other `up` gets it. Removes the run file at the end.

        The kernel lets go of it when this process dies, however it dies; child processes do not inherit it.

        Raises:
            ConfigError: another `up` uses the folder, or it cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._dir.mkdir(parents=True, exist_ok=True)
                held = stack.enter_context((self._dir / "run.lock").open("a"))
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                run = self.read()
                who = f" (process {run.pid})" if run else ""
                raise ConfigError(
                    f"another `lookalike up`{who} uses {self._dir}: stop it, or name another folder with --data"
                ) from exc
            except OSError as exc:
                raise _unwritable(self._dir, exc) from exc
            try:
                yield
            finally:
                self._path.unlink(missing_ok=True)


def _identity(pid: int) -> str | None:
    """What tells a process from all others, also from a later one with its number; None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()  # a program's name may have spaces and brackets
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if state == "Z" else f"{fields[18]}@{boot}"  # field 22 of proc(5): ticks from boot to its start


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{folder} cannot be written: {error.strerror or error}")
