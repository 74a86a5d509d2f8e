"""Ports nobody has, and logs that say what was said last."""

from __future__ import annotations

import socket
from pathlib import Path

from lookalike.local.processes import free_ports, is_listening, last_line, port_is_free


def test_free_ports_are_different_and_free() -> None:
    """As many as asked for, and nobody listens on any."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(port_is_free(port) and not is_listening(port) for port in ports)


def test_a_free_port_is_none_that_a_client_could_be_given() -> None:
    """A server that is down finds its port free again: no outgoing connection is ever given it."""
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(free_ports(20)) < ephemeral


def test_a_port_with_a_listener_is_not_free() -> None:
    """What somebody listens on is seen from both sides."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert not port_is_free(port)
        assert is_listening(port)


def test_the_last_line_is_the_last_that_says_something(tmp_path: Path) -> None:
    """Empty lines do not count, nor what was there before; no log and an empty one say nothing."""
    log = tmp_path / "x.log"
    assert last_line(log) is None
    log.write_text("of an earlier day\n")
    since = log.stat().st_size
    assert last_line(log, since_bytes=since) is None
    log.write_text("of an earlier day\nfirst\n  last  \n\n")
    assert last_line(log, since_bytes=since) == "last"


def test_the_last_line_of_a_large_log_costs_no_more(tmp_path: Path) -> None:
    """Only the end of a log is read, whatever bytes it has."""
    log = tmp_path / "x.log"
    log.write_bytes(b"\xff" * 100_000 + b"\nlast\n")
    assert last_line(log) == "last"
