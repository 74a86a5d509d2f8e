"""``lookalike bench``: figures of this machine, each with its device; kept in ``build/bench-NAME.json`` too."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lookalike.bench.figures import keep, percentile
from lookalike.logs import configure_logging
from lookalike.options import json_option
from lookalike.output import note, say, table
from lookalike.settings import read_settings
from streams.report.outcomes import Outcome


@click.group("bench")
def command() -> None:
    """Measure this machine. Nothing else should run meanwhile.

    \b
    Examples:
      lookalike bench pipeline --embedder stub --json
      lookalike bench pipeline --embedder real
      lookalike bench metrics
    """


@command.command("pipeline")
@click.option(
    "--embedder",
    type=click.Choice(["stub", "real"]),
    default="stub",
    show_default=True,
    help="stub: everything free but the worker; real: photographs, network, index process.",
)
@click.option("--events", type=click.IntRange(1), default=None, help="Events (stub) or pictures a round (real).")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Of worker and bare loop (real).")
@click.option("--idle", type=click.IntRange(1), default=100, show_default=True, help="Single events when idle (real).")
@json_option
def pipeline(embedder: str, events: int | None, rounds: int, idle: int, as_json: bool) -> None:
    """Events per second, CPU per stage, freshness, memory; with `real` the ratio to a bare loop.

    Freshness is of single events published one after the other with `real`, and of all events, which lie
    in the log before the worker starts, with `stub`.
    """
    configure_logging("error")
    settings = read_settings()
    with _broker(settings.kafka.bootstrap) as (bootstrap, folder):
        if embedder == "stub":
            figures = _stub(bootstrap, n_events=events or 40_000)
        else:
            figures = _real(bootstrap, folder, n_pictures=events or 60, rounds=rounds, n_idle=idle)
    line = keep("pipeline", figures)
    if as_json:
        say(line)
    else:
        say("\n".join(table((name, value) for name, value in figures.items())))


@command.command("metrics")
@click.option("--events", type=click.IntRange(1000), default=50_000, show_default=True, help="Counted in each round.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@json_option
def metrics(events: int, rounds: int, as_json: bool) -> None:
    """CPU of the worker's metrics per event; the pulse's answer and its series with 100 and 1,000 tenants."""
    from lookalike.bench.proc import device
    from lookalike.bench.telling import telling

    figures = {**telling(n_events=events, rounds=rounds), "device": device()}
    line = keep("metrics", figures)
    if as_json:
        say(line)
        return
    for row in table([("figure", "value"), *((name, str(value)) for name, value in figures.items())]):
        say(row)


@contextmanager
def _broker(given: str | None) -> Iterator[tuple[str, Path]]:
    """The cluster that is set, else a local one for this run; and a folder for its files."""
    from lookalike.local.kafka import LocalKafka

    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as scratch:
        folder = Path(scratch)
        if given is not None:
            yield given, folder
            return
        with LocalKafka(folder / "kafka") as kafka:
            yield kafka.bootstrap, folder


def _stub(bootstrap: str, *, n_events: int) -> dict[str, Any]:
    from lookalike.bench.real import span_s
    from lookalike.bench.stub import run_stub

    run = run_stub(bootstrap, n_events=n_events, prefix=f"bench-{uuid.uuid4().hex[:8]}.")
    freshness_s = [one.freshness_s for one in run.outcomes if one.freshness_s is not None]
    figures = _figures(run.outcomes, run.thread_cpu_s, freshness_s=freshness_s)
    return {
        **figures,
        "events_per_s": round(n_events / span_s(run.outcomes), 1),
        "cpu_us_per_event": round(run.cpu_s / n_events * 1e6, 1),
        "rss_start_mb": round(run.rss_start_mb, 1),
        "rss_end_mb": round(run.rss_end_mb, 1),
    }


def _real(bootstrap: str, folder: Path, *, n_pictures: int, rounds: int, n_idle: int) -> dict[str, Any]:
    from lookalike import demo_pictures
    from lookalike.bench.real import run_real

    note(f"making {n_pictures} pictures of 2.5 megapixels")
    pictures = sorted(one.path for one in demo_pictures.make(folder / "originals", n=n_pictures))
    note(f"{rounds} rounds of {n_pictures} pictures, then {n_idle} single ones")
    prefix = f"bench-{uuid.uuid4().hex[:8]}."
    run = run_real(bootstrap, folder, pictures, prefix=prefix, rounds=rounds, n_idle=n_idle)
    return {
        **_figures(run.outcomes, run.thread_cpu_s, freshness_s=run.idle_freshness_s),
        "events_per_s": round(len(run.outcomes) / run.seconds, 2),
        "bare_ratio": round(run.bare_ratio, 3),
        "worker_cpu_ms": [round(one * 1e3, 2) for one in run.worker_cpu_s],
        "bare_cpu_ms": [round(one * 1e3, 2) for one in run.bare_cpu_s],
        "rss_start_mb": round(run.rss_start_mb, 1),
        "rss_end_mb": round(run.rss_end_mb, 1),
    }


def _figures(
    outcomes: Sequence[Outcome], thread_cpu_s: Mapping[str, float], *, freshness_s: Sequence[float]
) -> dict[str, Any]:
    """A stage's cost is the CPU of its threads (and of the decoder processes), per event."""
    from lookalike.bench.proc import device

    return {
        "events": len(outcomes),
        "workers": 1,
        "cost_us_by_stage": {name: round(spent / len(outcomes) * 1e6, 1) for name, spent in thread_cpu_s.items()},
        "freshness_p50_s": round(percentile(freshness_s, 0.5), 4),
        "freshness_p95_s": round(percentile(freshness_s, 0.95), 4),
        "freshness_p99_s": round(percentile(freshness_s, 0.99), 4),
        "device": device(),
    }
