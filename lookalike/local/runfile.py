"""DATA/run.json: where a running `lookalike up` answers, for the commands beside it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from lookalike.local.s3 import S3Address
from streams.errors import ConfigError


class Run(msgspec.Struct, frozen=True):
    """One running `up`. Addresses have no slash at the end, paths are absolute, `started_at` is seconds since 1970.

    Objects are at `s3` where it is given, else in `objects_dir`.
    `process` tells it from every other process, also from a later one with its `pid`.
    """

    bootstrap: str
    index_socket: Path
    objects_dir: Path
    api_url: str
    pid: int
    process: str
    started_at: float
    s3: S3Address | None = None
    status_urls: dict[str, str] = {}
    """Where each process tells about itself (`/metrics`, `/healthz`, `/readyz`), by its name."""


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
            run = msgspec.json.decode(self._path.read_bytes(), type=Run, dec_hook=lambda kind, value: kind(value))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise ConfigError(f"{self._path} cannot be read: {exc.strerror or exc}") from exc
        except msgspec.DecodeError as exc:
            raise ConfigError(f"{self._path} is no run file ({exc}): remove it") from exc
        return run if run.process == _identity(run.pid) else None

    def write(
        self,
        *,
        bootstrap: str,
        index_socket: Path,
        objects_dir: Path,
        api_url: str,
        s3: S3Address | None = None,
        status_urls: Mapping[str, str] | None = None,
    ) -> None:
        """Say where this process's services answer; under :meth:`lock`. Readable by this user only.

        Raises:
            ConfigError: the folder cannot be written.
        """
        pid = os.getpid()
        run = Run(
            bootstrap=bootstrap,
            index_socket=index_socket.resolve(),
            objects_dir=objects_dir.resolve(),
            api_url=api_url,
            pid=pid,
            process=_identity(pid) or "",
            started_at=time.time(),
            s3=s3,
            status_urls=dict(status_urls or {}),
        )
        try:
            with tempfile.NamedTemporaryFile(dir=self._dir, prefix="run.", delete=False) as part:  # mode 600
                part.write(msgspec.json.encode(run, enc_hook=str))
            Path(part.name).replace(self._path)
        except OSError as exc:
            raise _unwritable(self._dir, exc) from exc

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Makes the folder where it is missing; while held, no other `up` gets it. Removes the run file at the end.

        The kernel lets go of it when this process dies, however it dies; child processes do not inherit it.

        Raises:
            ConfigError: another `up` uses the folder, or it cannot be written.
        """
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            lock = (self._dir / "run.lock").open("a")
        except OSError as exc:
            raise _unwritable(self._dir, exc) from exc
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                run = self.read()  # not there yet while that one starts
                who = f" (process {run.pid})" if run else ""
                raise ConfigError(
                    f"another `lookalike up`{who} uses {self._dir}: stop it, or name another folder with --data"
                ) from exc
            try:
                yield
            finally:
                self._path.unlink(missing_ok=True)


def _identity(pid: int) -> str | None:
    """The boot and the tick in which a process started (proc(5), stat, field 22); None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()  # what comes before is a name, which may have spaces
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if state == "Z" else f"{boot}/{fields[18]}"


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{folder} cannot be written: {error.strerror or error}")
