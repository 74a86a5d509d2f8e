"""The holder's side: one Edge shard in a process of its own, asked over a socket by the index process.

``python -m embedder.index.apart.child FD PARENT``. The first request is `open`, and its answer says whether
that went well; `close`, or the end of the socket, is the end. It goes down with the process that started it.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from embedder.index.apart.channel import Channel
from embedder.index.apart.with_parent import end_with
from embedder.index.codec import decode_writes, encode
from embedder.index.edge.shard import EdgeIndex
from embedder.index.edge.warm import warm
from embedder.index.protocol import CollectionSpec
from embedder.index.service.operations import READS, delete_tenant
from embedder.index.service.wire import Request, decode_request, error_data
from streams.errors import ConfigError, DependencyError

log = structlog.get_logger(__name__)

_opening = msgspec.msgpack.Decoder(tuple[CollectionSpec, str, str | None])
_flag = msgspec.msgpack.Decoder(bool)
_replayed = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]])


def main(handle: int, parent: int) -> int:
    """Answer until told to close; the exit code."""
    if not end_with(parent):
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # a whole group may be sent them: the index process says when to end
    channel = Channel(socket.socket(fileno=handle))
    first = channel.receive()
    if first is None:
        return 1
    request = decode_request(first)
    spec, home, folder = _opening.decode(request.arguments)
    try:
        index = EdgeIndex(spec, Path(home), folder=None if folder is None else Path(folder))
    except (ConfigError, DependencyError, OSError) as exc:
        channel.send(encode((request.id, error_data(exc), None)))
        return 1
    channel.send(encode((request.id, None, None)))
    if folder is None:  # a copy was read when it was made
        threading.Thread(target=_warm, args=(index.folder,), name="index-warm", daemon=True).start()
    _serve(index, channel)
    return 0


def _warm(folder: Path) -> None:
    started = time.monotonic()
    try:
        n_bytes = warm(folder)
    except OSError as exc:  # whoever asks for those pages will meet it
        log.warning("files were not read ahead", error=str(exc))
        return
    log.info("files read ahead", mb=n_bytes >> 20, took_s=round(time.monotonic() - started, 3))


def _serve(index: EdgeIndex, channel: Channel) -> None:
    while (body := channel.receive()) is not None:
        request = decode_request(body)
        try:
            channel.send(_answer(index, request))
        except ValueError as exc:  # larger than a frame may be
            channel.send(encode((request.id, error_data(exc), None)))
        if request.operation == "close":
            return


def _answer(index: EdgeIndex, request: Request) -> bytes:
    try:
        return encode((request.id, None, msgspec.Raw(_execute(index, request.operation, request.arguments))))
    except Exception as exc:
        told = error_data(exc)
        if told[0] == "internal":
            log.exception("request failed", operation=request.operation)
        return encode((request.id, told, None))


def _execute(index: EdgeIndex, operation: str, arguments: msgspec.Raw) -> bytes:
    does = READS.get(operation) or _OWN.get(operation)
    if does is None:
        raise ValueError(f"unknown operation {operation!r}")
    return does(index, arguments)


def _replay(index: EdgeIndex, arguments: msgspec.Raw) -> bytes:
    for operation, raw in _replayed.decode(arguments):
        _execute(index, operation, raw)
    return encode(None)


def _flush(index: EdgeIndex, _arguments: msgspec.Raw) -> bytes:
    index.flush()
    return encode(None)


def _close(index: EdgeIndex, _arguments: msgspec.Raw) -> bytes:
    index.close()
    return encode(None)


_OWN: dict[str, Callable[[EdgeIndex, msgspec.Raw], bytes]] = {
    "write_now": lambda index, arguments: encode(index.write_now(*decode_writes(arguments))),
    "delete_tenant": delete_tenant,
    "flush": _flush,
    "waiting": lambda index, _arguments: encode(index.waiting()),
    "points": lambda index, arguments: encode(index.n_points(counted=_flag.decode(arguments))),
    "replay": _replay,
    "close": _close,
}


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    _log_to_stderr()
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
