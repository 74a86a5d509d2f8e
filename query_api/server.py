"""Serving the app: one process, uvloop and httptools, until a signal asks it to stop."""

from __future__ import annotations

import ipaddress
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from query_api.protocol import PatientProtocol
from streams.errors import ConfigError

DRAIN_S = 2.0
"""What is under way may take this long after a stop; the lifespan's end has the rest of 3 s."""


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    has_keys: bool = False,
    drain_s: float = DRAIN_S,
    on_bound: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return. Prints nothing.

    Requests under way may take `drain_s` to their end. Without keys only this machine is listened to.

    `on_bound` is told the address (``http://127.0.0.1:8080``) once connections are accepted by the
    kernel; with `port` 0 that is how to learn the port.

    Raises:
        ConfigError: no keys and not a loopback address, or the port cannot be had.
    """
    with bind(host, port, anywhere=has_keys) as listening:
        on_bound(address_of(listening))
        with _signals_end_here():
            server_of(app, drain_s=drain_s).run(sockets=[listening])


def server_of(
    app: ASGIApp, *, drain_s: float = DRAIN_S, protocol: type[PatientProtocol] = PatientProtocol
) -> uvicorn.Server:
    """The server as a value: run it with a socket of :func:`bind`; `should_exit` stops it."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on who stands in front
        timeout_graceful_shutdown=math.ceil(drain_s),
    )
    return uvicorn.Server(config)


def bind(host: str, port: int, *, anywhere: bool = False) -> socket.socket:
    """A listening socket; only where `anywhere` holds on another address than this machine's own.

    ConfigError: one line that says why there is none.
    """
    if not anywhere and not _is_loopback(host):
        raise ConfigError(
            f"LOOKALIKE_API_HOST={host}: without access keys the API listens on 127.0.0.1 only; "
            "make keys with `lookalike keys create` and set LOOKALIKE_API_KEYS_FILE"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise ConfigError(f"the API cannot listen on {host}: {exc.strerror}") from exc
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(256)
    except OSError as exc:
        listening.close()
        message = (
            f"port {port} of {host} cannot be had ({exc.strerror}): choose another with --port or LOOKALIKE_API_PORT"
        )
        raise ConfigError(message) from exc
    return listening


def address_of(listening: socket.socket) -> str:
    """The base of every address of this server."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    """Names are not resolved but `localhost`: what they mean may change."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _signals_end_here() -> Iterator[None]:
    """uvicorn raises the signal that stopped it once more at its end; a stop that was asked for is no failure."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
