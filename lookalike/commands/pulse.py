"""``lookalike pulse``: the composition root of the process that watches the others."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import click

from lookalike.addresses import Addresses, find_addresses
from lookalike.logs import configure_logging
from lookalike.options import data_option
from lookalike.output import say
from lookalike.settings import Settings, read_settings


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
    from embedder.index.service.client import IndexClient
    from lookalike.pulse import Pulse
    from streams.backlog import BacklogWatch
    from streams.metrics import PulseMetrics
    from streams.pulse import FaustView, end_process
    from streams.status_server import StatusServer, process_registry
    from streams.tenant_view import TenantView
    from streams.topics import Lane

    client = addresses.kafka(settings)
    kafka = settings.kafka.model_copy(update={"bootstrap": client["bootstrap.servers"]})
    names, view, registry = kafka.topic_names(), TenantView(), process_registry()
    faust = FaustView(kafka, view=view)
    with (
        closing(IndexClient(addresses.index_socket(settings), timeout_s=5.0)) as index,
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
        port = settings.metrics.port or 0
        stop = threading.Event()
        looks = threading.Thread(
            target=pulse.run,
            args=(stop,),
            kwargs={"every_s": settings.pulse.every_s, "recall_every_s": settings.pulse.recall_every_s},
            name="looks",
            daemon=True,
        )
        pages = {"/pulse": pulse.page}
        with StatusServer(settings.metrics.host, port, registry=registry, ready=pulse.ready, pages=pages) as server:
            say(server.url)
            looks.start()
            try:
                asyncio.run(_until_asked(faust.run))
            finally:
                stop.set()
                looks.join()


async def _until_asked(run_view: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """The view in this thread's loop, until SIGTERM or Ctrl-C."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    with contextlib.suppress(asyncio.CancelledError):  # Faust's own tasks end that way
        await run_view(asked)
