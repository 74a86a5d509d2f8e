"""HTTP load from a process of its own: ``python -m lookalike.bench.load``, a job as JSON on stdin, figures on stdout.

Closed loop: each of `clients` sends its next request when the last one is answered. Open loop (`rate`):
requests are due at fixed times and their latency counts from then on, so a stall is not hidden by the
requests that it kept from being sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

OPEN_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class Job:
    """Raw requests to send in turn (PORT in them is filled in) for so many seconds.

    `rate` is requests a second in an open loop, None for a closed one of `clients`.
    """

    port: int
    requests: Sequence[str]
    seconds: float
    clients: int = 1
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Latencies in milliseconds in the order of the answers, how many were not answered with 200, and one of those."""

    latencies_ms: list[float]
    failed: int
    seconds: float
    failure: str = ""


async def run(job: Job) -> Result:
    """Send all of it."""
    latencies: list[float] = []
    failures: list[str] = []
    requests = [one.replace("PORT", str(job.port), 1).encode() for one in job.requests]
    started = time.perf_counter()
    number = 0

    async def client() -> None:
        nonlocal number
        reader, writer = await asyncio.open_connection("127.0.0.1", job.port)
        while True:
            mine, number = number, number + 1
            due = started + mine / job.rate if job.rate else time.perf_counter()
            if due - started > job.seconds:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(requests[mine % len(requests)])
            status, body = await _answer(reader)
            if status != 200:
                failures.append(f"{status} {body[:300]}")
            latencies.append((time.perf_counter() - due) * 1e3)
        writer.close()

    await asyncio.gather(*(client() for _ in range(OPEN_CLIENTS if job.rate else job.clients)))
    return Result(latencies, len(failures), time.perf_counter() - started, failures[0] if failures else "")


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and body of one answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    length = next(int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:"))
    body = await reader.readexactly(length)
    return int(head[0].split()[1]), body.decode("utf-8", "replace")


def main() -> None:
    """The process's whole life."""
    job = Job(**json.load(sys.stdin))
    sys.stdout.write(json.dumps(asdict(asyncio.run(run(job)))) + "\n")


if __name__ == "__main__":
    main()
