"""What a process costs, read from /proc: CPU seconds with its children, resident memory; and what machine this is."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from field 3 (state) on: the name before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it that lives now."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(_stat(int(entry))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended between the listing and the look
            parents.setdefault(parent, []).append(int(entry))
    found = [pid]
    for one in found:
        found += parents.get(one, ())
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds (user and system) of `pid`, of what lives below it, and of what ended below it."""
    total = 0
    for one in descendants(pid):
        fields = _stat(one)
        total += sum(int(fields[n]) for n in (11, 12, 13, 14))  # utime, stime, cutime, cstime
    return total * _TICK_S


def on_cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds of all threads of these processes, to the nanosecond; of threads that ended nothing is in it."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in tasks) / 1e9


def thread_cpu_s(pid: int, *, main: str, below: str | None = None) -> dict[str, float]:
    """CPU seconds of a process by the names of its threads.

    `main` is what its main thread is called here, `below` what the processes below it are (None: left out).
    Threads of the Kafka client are `kafka client`; those of one name (fetch-0, fetch-1) count together.
    """
    found: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            fields, comm = (
                task.joinpath("stat").read_text().rpartition(")")[2].split(),
                task.joinpath("comm").read_text(),
            )
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        name = main if task.name == str(pid) else comm.strip()
        known = "kafka client" if name.startswith("rdk:") else name.rstrip("-0123456789")
        found[known] += int(fields[11]) + int(fields[12])
    if below is not None:
        found[below] += sum(sum(map(int, _stat(one)[11:15])) for one in descendants(pid)[1:])
    return {name: ticks * _TICK_S for name, ticks in found.items()}


def rss_mb(pid: int) -> float:
    """Resident memory of `pid` alone, in MiB."""
    return int(_stat(pid)[21]) * _PAGE_BYTES / 2**20


def device() -> str:
    """The machine in words: what a figure must have beside it."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Python {platform.python_version()}"
