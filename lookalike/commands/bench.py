"""``lookalike bench``: figures of this machine, each with its device; kept in ``build/bench-NAME.json`` too."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lookalike.bench.figures import keep as keep_figures
from lookalike.bench.figures import percentile
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
      lookalike bench pipeline --embedder stub --workers 2
      lookalike bench pipeline --embedder real
      lookalike bench flood
      lookalike bench embed --json
      lookalike bench metrics
    """


@command.command("embed")
@click.option("--pictures", type=click.IntRange(8), default=48, show_default=True, help="JPEG; half as many others.")
@click.option("--timed", type=click.IntRange(4), default=16, show_default=True, help="JPEG timed a round; half others.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Every path once a round.")
@json_option
def embed(pictures: int, timed: int, rounds: int, as_json: bool) -> None:
    """Bytes in, vector out: engines and preprocessings against the seed's way, on one core and on two.

    Takes about four minutes; build/bench-embed.json and, with the extra `plots`, build/bench-embed.png keep it.

    \b
    Examples:
      lookalike bench embed --json
      lookalike bench embed --rounds 9 --timed 24
    """
    from lookalike.bench.embed_plot import plot
    from lookalike.bench.embed_run import run_embed, shown

    configure_logging("error")
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as scratch:
        figures = run_embed(Path(scratch), n_pictures=pictures, n_timed=timed, rounds=rounds, tell=note)
    line = keep_figures("embed", figures)
    plot(figures, Path("build", "bench-embed.png"))
    say(line if as_json else "\n".join(table(shown(figures))))


@command.command("pipeline")
@click.option(
    "--embedder",
    type=click.Choice(["stub", "real"]),
    default="stub",
    show_default=True,
    help="stub: everything free but the worker; real: photographs, network, index process.",
)
@click.option("--events", type=click.IntRange(1), default=None, help="Events (stub) or pictures a round (real).")
@click.option("--images", type=click.IntRange(1), default=None, help="The events are about so many (stub); one each.")
@click.option("--workers", type=click.IntRange(1, 16), default=1, show_default=True, help="Worker processes (stub).")
@click.option("--cost-ms", type=float, default=20.0, show_default=True, help="CPU of a picture, with --workers 2 on.")
@click.option("--load", is_flag=True, help="Freshness at 50 and 80 % of the rate found, too (stub).")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Of worker and bare loop (real).")
@click.option("--idle", type=click.IntRange(1), default=100, show_default=True, help="Single events when idle (real).")
@json_option
def pipeline(
    embedder: str,
    events: int | None,
    images: int | None,
    workers: int,
    cost_ms: float,
    load: bool,
    rounds: int,
    idle: int,
    as_json: bool,
) -> None:
    """Events per second, CPU per stage, freshness, memory; with `real` the ratio to a bare loop.

    With several workers: their rate against one's, each picture costing CPU, broker and index beside them.
    Freshness is of single events published one after the other with `real`, and of all events, which lie
    in the log before the worker starts, with `stub`.
    """
    configure_logging("error")
    settings = read_settings()
    with _broker(settings.kafka.bootstrap) as (bootstrap, folder):
        if embedder == "stub" and workers > 1:
            figures = _scale(bootstrap, folder, n_workers=workers, n_events=events or 600, cost_s=cost_ms / 1e3)
        elif embedder == "stub":
            figures = _stub(bootstrap, n_events=events or 40_000, n_images=images)
            if load:
                figures |= _load(bootstrap, rate=figures["events_per_s"])
        else:
            figures = _real(bootstrap, folder, n_pictures=events or 60, rounds=rounds, n_idle=idle)
    _print("pipeline", figures, as_json=as_json)


@command.command("flood")
@click.option("--seconds", type=click.IntRange(1), default=60, show_default=True, help="Of tenant A's flood.")
@click.option("--solo", type=click.IntRange(1), default=20, show_default=True, help="Seconds of tenant B alone.")
@click.option("--cost-ms", type=float, default=5.0, show_default=True, help="What a picture takes.")
@json_option
def flood(seconds: int, solo: int, cost_ms: float, as_json: bool) -> None:
    """Freshness of tenant B (10 % of what a worker can do) alone, and while A sends 3 times what it can do."""
    from lookalike.bench.paced import run_flood
    from lookalike.bench.proc import device

    configure_logging("error")
    with _broker(read_settings().kafka.bootstrap) as (bootstrap, _):
        alone, beside, shunted = run_flood(
            bootstrap, prefix=_prefix(), cost_s=cost_ms / 1e3, seconds=seconds, solo_s=solo
        )
    solo_p95, flood_p95 = percentile(alone, 0.95), percentile(beside, 0.95)
    figures = {
        "seconds": seconds,
        "events_of_b": len(beside),
        "shunted": int(shunted),
        "solo_p50_s": round(percentile(alone, 0.5), 4),
        "solo_p95_s": round(solo_p95, 4),
        "flood_p50_s": round(percentile(beside, 0.5), 4),
        "flood_p95_s": round(flood_p95, 4),
        "flood_worst_s": round(max(beside), 4),
        "p95_ratio": round(flood_p95 / solo_p95, 2),
        "device": device(),
    }
    _print("flood", figures, as_json=as_json)


@command.command("metrics")
@click.option("--events", type=click.IntRange(1000), default=50_000, show_default=True, help="Counted in each round.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@json_option
def metrics(events: int, rounds: int, as_json: bool) -> None:
    """CPU of the worker's metrics per event; the pulse's answer and its series with 100 and 1,000 tenants."""
    from lookalike.bench.proc import device
    from lookalike.bench.telling import telling

    figures = {**telling(n_events=events, rounds=rounds), "device": device()}
    _print("metrics", figures, as_json=as_json)


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


def _prefix() -> str:
    return f"bench-{uuid.uuid4().hex[:8]}."


def _print(name: str, figures: Mapping[str, Any], *, as_json: bool) -> None:
    line = keep_figures(name, figures)
    say(line if as_json else "\n".join(table(figures.items())))


def _load(bootstrap: str, *, rate: float) -> dict[str, Any]:
    """Freshness while events come at half and at four fifths of what the worker did."""
    from lookalike.bench.paced import run_load

    found: dict[str, Any] = {}
    for share in (0.5, 0.8):
        note(f"8 s at {share:.0%} of {rate:.0f} events/s")
        freshness_s = run_load(bootstrap, prefix=_prefix(), rate=share * rate, seconds=8)
        for part in (0.5, 0.95):
            found[f"load_{share * 100:.0f}_p{part * 100:.0f}_s"] = round(percentile(freshness_s, part), 4)
    return found


def _scale(bootstrap: str, folder: Path, *, n_workers: int, n_events: int, cost_s: float) -> dict[str, Any]:
    from lookalike.bench.paced import run_scale
    from lookalike.bench.proc import device

    rates = {}
    for n in (1, n_workers):
        note(f"{n_events} pictures of {cost_s * 1e3:g} ms on {n} worker{'s' if n > 1 else ''}")
        own = folder / f"scale-{n}"
        own.mkdir()
        rates[n] = run_scale(bootstrap, own, prefix=_prefix(), n_workers=n, n_events=n_events, cost_s=cost_s)
    return {
        "events": n_events,
        "workers": n_workers,
        "cost_ms": cost_s * 1e3,
        "events_per_s_one": round(rates[1], 2),
        "events_per_s": round(rates[n_workers], 2),
        "scaling": round(rates[n_workers] / rates[1], 3),
        "device": device(),
    }


def _stub(bootstrap: str, *, n_events: int, n_images: int | None) -> dict[str, Any]:
    from lookalike.bench.real import span_s
    from lookalike.bench.stub import run_stub

    run = run_stub(bootstrap, n_events=n_events, n_images=n_images or n_events, prefix=_prefix())
    freshness_s = [one.freshness_s for one in run.outcomes if one.freshness_s is not None]
    figures = _figures(run.outcomes, run.thread_cpu_s, freshness_s=freshness_s)
    return {
        **figures,
        "events_per_s": round(n_events / span_s(run.outcomes), 1),
        "cpu_us_per_event": round(run.cpu_s / n_events * 1e6, 1),
        "rss_start_mb": round(run.rss_start_mb, 1),
        "rss_end_mb": round(run.rss_end_mb, 1),
        "poll_gaps_over_100_ms": run.poll_gaps_over_100_ms,
    }


def _real(bootstrap: str, folder: Path, *, n_pictures: int, rounds: int, n_idle: int) -> dict[str, Any]:
    from lookalike import demo_pictures
    from lookalike.bench.real import run_real

    note(f"making {n_pictures} pictures of 2.5 megapixels")
    pictures = sorted(one.path for one in demo_pictures.make(folder / "originals", n=n_pictures))
    note(f"{rounds} rounds of {n_pictures} pictures, then {n_idle} single ones")
    prefix = _prefix()
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


@command.command("search")
@click.option("--points", type=click.IntRange(2_000, 1_000_000), default=100_000, show_default=True, help="How many.")
@click.option("--dims", type=click.IntRange(8, 4096), default=1280, show_default=True, help="Floats of a vector.")
@click.option("--queries", type=click.IntRange(4), default=100, show_default=True, help="Of each shape.")
@click.option("--seconds", type=click.FloatRange(0.5), default=10.0, show_default=True, help="Of each load over HTTP.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="numpy and faiss on the same rows.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for what is built: a second run with it measures without building. Default: removed at the end.",
)
@json_option
def search(points: int, dims: int, queries: int, seconds: float, peers: bool, keep: Path | None, as_json: bool) -> None:
    """Recall and latency of every shape of query, in the index and over HTTP, alone and beside writes.

    A million points of 1280 floats take some 13 GB of disk and half an hour.
    """
    configure_logging("error")
    from lookalike.bench.plot import plot_search
    from lookalike.bench.search import run_search

    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as scratch:
        figures = run_search(
            keep or Path(scratch), n_points=points, dim=dims, n_queries=queries, seconds=seconds, peers=peers
        )
    line = keep_figures("search", figures)
    if not plot_search(figures, Path("build/bench-search.png")):
        note("no plot: matplotlib is not installed (the extra `plots`)")
    if as_json:
        say(line)
        return
    head = ("shape", "policy", "clients", "recall_at_10", "index_p50_ms", "index_p95_ms", "http_p50_ms", "http_p95_ms")
    say("\n".join(table([head, *([row.get(name, "") for name in head] for row in figures["rows"])])))
    say("\n".join(table((name, value) for name, value in figures.items() if not isinstance(value, list))))
