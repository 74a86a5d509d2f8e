"""Child processes that never outlive their parent, and ports nobody has."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_TETHER = Path(__file__).with_name("tether.py")
_MAX_LOG_BYTES = 10_000_000


class OwnProcess:
    """A child in a session and process group of its own, killed by the kernel when this process dies.

    A Ctrl-C in the terminal reaches only the parent, which then stops its children in order. Create it in a
    thread that lives as long as the child should: Linux sends the death signal when that *thread* ends.
    """

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        """Starts it; both outputs are appended to `log`. A command that cannot be run ends with 3, and says so there.

        Raises:
            OSError: the log cannot be written, or the system starts no process.
        """
        tethered = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                tethered,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        self._swept = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it. What it left in its group is killed with it."""
        code = self._process.poll()
        if code is not None:
            self._sweep()
        return code

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None where it still runs after `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return self.exit_code()

    def terminate(self) -> None:
        """SIGTERM to it alone, so that it ends its own children in order. Returns at once; harmless to a dead one."""
        self._process.terminate()

    def stop(self, timeout_s: float) -> int:
        """:meth:`terminate` and :meth:`end_within`; returns the exit code. Blocks."""
        self.terminate()
        return self.end_within(timeout_s)

    def end_within(self, timeout_s: float) -> int:
        """Wait for its end, and after `timeout_s` kill the whole group; returns the exit code.

        For one that was asked already: Python gives SIGTERM back to the system while it shuts down, so that a
        second one would kill a process that is about to end by itself.
        """
        code = self.wait(timeout_s)
        return self.kill() if code is None else code

    def kill(self) -> int:
        """kill -9 of the whole group, and wait until it is gone; returns the exit code."""
        self._sweep()
        return self._process.wait()

    def _sweep(self) -> None:
        """Kill the group; once, because its number may be another's when all of it is gone."""
        if self._swept:
            return
        self._swept = True
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nothing is left


def rotate(log: Path) -> None:
    """Set a log aside that has grown large; one older log is kept."""
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


def last_line(log: Path, *, since_bytes: int = 0) -> str | None:
    """The last line that says something in a log, none from before `since_bytes`."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since_bytes, size - 8192, 0))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def free_ports(n: int) -> list[int]:
    """`n` different ports on 127.0.0.1 that nobody listens on now.

    Below those the system gives to outgoing connections: the port of a server that is down would else be
    taken by some client – even by its own, which tries to reach it and, given that very number, talks to itself.
    """
    lowest = 10_240
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    highest = ephemeral - 1 if ephemeral > lowest + 1000 else 65_535
    found: list[int] = []
    while len(found) < n:
        port = lowest + secrets.randbelow(highest - lowest + 1)
        if port not in found and port_is_free(port):
            found.append(port)
    return found


def port_is_free(port: int) -> bool:
    """Whether this process could listen on 127.0.0.1:`port` now."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are closing do not count
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_listening(port: int, *, timeout_s: float = 1.0) -> bool:
    """Whether somebody accepts connections on 127.0.0.1:`port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=timeout_s).close()
    except OSError:
        return False
    return True
