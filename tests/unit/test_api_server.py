"""The process that serves: where it listens, what it refuses, how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from query_api.deps import Limits
from query_api.server import bind
from streams.errors import ConfigError
from tests.api_rig import filled, serving

ROOT = Path(__file__).parents[2]
PROGRAM = textwrap.dedent(
    """
    import sys
    from query_api.server import serve
    from tests.api_rig import filled

    serve(filled(1, 1).app(), "127.0.0.1", 0, on_bound=lambda address: sys.stderr.write(address + "\\n"))
    sys.stderr.write("ended\\n")
    """
)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_it_listens_on_this_machine_only(host: str) -> None:
    """Anything but a loopback address is refused before a socket is opened."""
    with pytest.raises(ConfigError, match=r"access keys .*LOOKALIKE_API_KEYS_FILE"):
        bind(host, 0)


def test_with_keys_it_listens_anywhere() -> None:
    """The refusal is for an API without keys only."""
    with bind("0.0.0.0", 0, anywhere=True) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_sender_of_too_much_gets_to_read_its_answer(chunked: bool) -> None:
    """413 arrives whole, without a reset, and the connection can be used again."""
    with serving(filled(1, 1).app(limits=Limits(max_body_bytes=64 * 1024))) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
        with closing(connection):
            body = (bytes(1 << 18) for _ in range(16)) if chunked else bytes(1 << 22)
            connection.request("POST", "/v1/tenants/acme/search/upload", body, encode_chunked=chunked)
            response = connection.getresponse()
            assert response.status == 413
            assert b"body_too_large" in response.read()
            connection.request("GET", "/healthz")
            assert json.loads(connection.getresponse().read())["status"] == "ok"


def test_the_api_starts_without_torch_and_without_a_decoder() -> None:
    """Whatever looks at pictures lives in another process."""
    program = "import sys, query_api.app, query_api.server; print([n for n in ('torch', 'PIL') if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_taken_port_is_one_line() -> None:
    """The line names the port and what to set."""
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} .*LOOKALIKE_API_PORT") as caught:
            bind("localhost", port)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_then_returns(stop: signal.Signals) -> None:
    """A stop that was asked for ends the call, not the process; nothing was printed to stdout."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().strip()
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
            with closing(connection):
                connection.request("GET", "/healthz")
                assert json.loads(connection.getresponse().read())["status"] == "ok"
            process.send_signal(stop)
            out, err = process.communicate(timeout=20)
            assert process.returncode == 0
        finally:
            process.kill()  # leaving the block waits for its end
    assert "ended" in err
    assert out == ""
