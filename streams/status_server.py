"""What a process without an API tells about itself, on a port of its own: metrics, health, readiness.

The worker, the index, the pulse and whatever else runs for long serve the very same paths, so that one
probe and one scrape configuration fit all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import msgspec
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.process_collector import ProcessCollector

from streams.errors import ConfigError

log = structlog.get_logger(__name__)

JSON = "application/json"
Told = tuple[bool, Mapping[str, Any]]
"""Whether all is well, and the JSON object that says so."""


def process_registry() -> CollectorRegistry:
    """A registry with the usual `process_*` metrics: memory, CPU, file descriptors, start time."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def always_well() -> Told:
    """The health of a process that is well whenever it answers."""
    return True, {}


class StatusServer:
    """`/metrics`, `/healthz`, `/readyz`, and `pages` (path → JSON object). Serves from threads of its own.

    `health` and `ready` answer 200 or 503; they are called for each request and should take less than two
    seconds. Nothing is cached: a probe asks what is true now.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        health: Callable[[], Told] = always_well,
        ready: Callable[[], Told] = always_well,
        pages: Mapping[str, Callable[[], Mapping[str, Any]]] | None = None,
    ) -> None:
        """Listens when it returns; port 0 takes a free one.

        Raises:
            ConfigError: the port cannot be had.
        """
        answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry)),
            "/healthz": lambda: _told(*health()),
            "/readyz": lambda: _told(*ready()),
        }
        for path, page in (pages or {}).items():
            answers[path] = lambda page=page: (200, JSON, msgspec.json.encode(page()))  # type: ignore[misc]
        try:
            self._server = _Server((host, port), _handler(answers))
        except OSError as exc:
            raise ConfigError(
                f"port {port} of {host} cannot be had ({exc.strerror or exc}): set another LOOKALIKE_…_METRICS_PORT"
            ) from exc
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()
        log.info("status answers", url=self.url)

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        host, port = self._server.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    def close(self) -> None:
        """Stop listening; twice is harmless."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the standard library's names
        """A caller that hung up is no news; anything else is, once, and costs that one answer."""
        log.warning("status request failed", client=str(client_address), exc_info=True)


def _told(well: bool, body: Mapping[str, Any]) -> tuple[int, str, bytes]:
    answer = {"status": "ok" if well else "failed", **body}
    return 200 if well else 503, JSON, msgspec.json.encode(answer)


def _handler(answers: Mapping[str, Callable[[], tuple[int, str, bytes]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        server_version = "lookalike"
        sys_version = ""

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status, kind, body = answer() if answer is not None else (404, JSON, b'{"status":"unknown path"}')
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Probes and scrapes come every few seconds: no line for each."""

    return Handler
