"""``lookalike pulse``: the composition root of the process that watches the others."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import click

from lookalike.addresses import Addresses, find_addresses
from lookalike.logs import configure_logging
from lookalike.options import data_option
from lookalike.output import say
from lookalike.settings import Settings, read_settings
from lookalike.signals import stop_on_signals


@click.command("pulse")
@data_option
@click.pass_context
def command(ctx: click.Context, data: Path | None) -> None:
    """Tell lag, index, recall and what each tenant gets, until SIGTERM or Ctrl-C. Prints its address.

    It outlives the workers it watches, and may itself die at any time: what it shows is read again from the
    log (docs/faust.md). Exit 70: that is due; start it again.

    \b
    Examples:
      lookalike pulse                        beside a running `lookalike up` (which has one of its own)
      curl -s $ADDRESS/pulse | jq '.tenants[] | {tenant_id, backlog, backlog_done_in_s}'
    """
    settings = read_settings()
    configure_logging(settings.process.log_level)
    run(settings, find_addresses(settings, data))
    ctx.exit(0)


def run(settings: Settings, addresses: Addresses) -> None:
    """Connect everything, look and tell until asked to stop."""
    from lookalike.index import open_index
    from lookalike.pulse import Pulse
    from streams.backlog import BacklogWatch
    from streams.metrics import PulseMetrics
    from streams.pulse import FaustView, end_process
    from streams.status_server import StatusServer, process_registry
    from streams.tenant_view import TenantView
    from streams.topics import Lane

    asked = stop_on_signals()  # before the address is known to anybody; the loop has its own from its start on
    client = addresses.kafka(settings)
    kafka = settings.kafka.model_copy(update={"bootstrap": client["bootstrap.servers"]})
    names, view, registry = kafka.topic_names(), TenantView(), process_registry()
    faust = FaustView(kafka, view=view)
    with (
        closing(open_index(settings, addresses, timeout_s=5.0)) as index,
        closing(BacklogWatch(client, kafka.group_id, [names.lane(lane) for lane in Lane])) as lanes,
    ):
        pulse = Pulse(
            lanes=lanes,
            index=index,
            view=view,
            positions=faust.positions,
            topics=(names.outcomes, names.dead),
            metrics=lambda rows: PulseMetrics(registry, rows=rows),
            top_tenants=settings.pulse.top_tenants,
            fail=end_process,
        )
        stop = threading.Event()
        looks = threading.Thread(
            target=pulse.run,
            args=(stop,),
            kwargs={"every_s": settings.pulse.every_s, "recall_every_s": settings.pulse.recall_every_s},
            name="looks",
            daemon=True,
        )
        beat = Heartbeat()
        with StatusServer(
            settings.pulse.metrics_host,
            settings.pulse.metrics_port,
            registry=registry,
            health=beat.health,
            ready=pulse.ready,
            pages={"/pulse": pulse.page},
        ) as server:
            say(server.url)
            looks.start()
            try:
                asyncio.run(_until_asked(faust.run, beat, asked))
            finally:
                stop.set()
                looks.join()


class Heartbeat:
    """Whether the event loop moves: told from within it, asked from another thread."""

    every_s = 1.0
    limit_s = 30.0

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()

    def tell(self) -> None:
        """The loop came round."""
        self._at = self._clock()

    def health(self) -> tuple[bool, dict[str, float]]:
        """How late the loop is, in seconds; not well above `limit_s`."""
        late_s = max(0.0, self._clock() - self._at - self.every_s)
        return late_s < self.limit_s, {"event_loop_late_s": round(late_s, 3)}


async def _until_asked(
    run_view: Callable[[asyncio.Event], Awaitable[None]], beat: Heartbeat, asked_before: threading.Event
) -> None:
    """The view in this thread's loop, until SIGTERM or Ctrl-C; `asked_before` the loop had handlers counts."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    if asked_before.is_set():
        asked.set()

    async def keep_telling() -> None:
        while True:
            beat.tell()
            await asyncio.sleep(beat.every_s)

    telling = asyncio.ensure_future(keep_telling())
    with contextlib.suppress(asyncio.CancelledError):  # Faust's own tasks end that way
        await run_view(asked)
    telling.cancel()
