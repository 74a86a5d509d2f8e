"""The index process with a brake: ``python -m tests.chaos.slow_index DATA ENGINE SOCKET``.

While the file DATA/slow exists, each write call takes the seconds it states, on the process's only thread:
what waits behind it waits as long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embedder.index.collections import Engine
from embedder.index.points import Write, Written
from embedder.index.protocol import CollectionSpec
from embedder.index.service import server


def main(data: Path, engine: str, socket: Path) -> int:
    """Serve as `lookalike index serve` does."""
    opener = server._opener

    def braked(name: str) -> Callable[[CollectionSpec, Path], Engine]:
        open_engine = opener(name)

        def open_braked(spec: CollectionSpec, home: Path) -> Engine:
            return _brake(open_engine(spec, home), data / "slow")

        return open_braked

    server._opener = braked  # type: ignore[assignment]  # the argument has another name
    return server.serve_forever(data=data, engine=engine, socket_path=socket)


def _brake(engine: Engine, slow: Path) -> Engine:
    write_now = engine.write_now

    def braked(tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        if slow.exists():
            time.sleep(float(slow.read_text()))
        return write_now(tenant_id, writes)

    opened: Any = engine
    opened.write_now = braked
    return engine


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
