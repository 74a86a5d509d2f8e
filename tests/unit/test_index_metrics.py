"""What the index process tells of itself, where it is not counted by the server."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry

from embedder.index.metrics import IndexMetrics

LARGE = 50 << 20
CHILD = f"held = bytearray({LARGE}); print('.', flush=True); input()"


def test_the_memory_of_holders_is_that_of_the_children() -> None:
    """They are processes of their own: what the process itself has says nothing about the vectors."""
    registry = CollectorRegistry()
    IndexMetrics(registry)

    def told() -> float:
        value = registry.get_sample_value("lookalike_index_holders_resident_bytes")
        assert value is not None
        return value

    before = told()
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == b"."
        assert told() - before >= LARGE
        child.communicate(b"\n")
    assert told() - before < LARGE
