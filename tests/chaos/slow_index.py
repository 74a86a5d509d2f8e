"""The index process with a brake: ``python -m tests.chaos.slow_index DATA ENGINE SOCKET``.

While the file DATA/slow exists, each write call takes the seconds it states, on the process's only thread:
what waits behind it waits as long.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from embedder.index.collections import Engine
from embedder.index.points import Write
from embedder.index.service import operations, process, server


def main(data: Path, engine: str, socket: Path) -> int:
    """Serve as `lookalike index serve` does."""
    checked_writes, slow = operations.checked_writes, data / "slow"

    def braked(engine: Engine, arguments: msgspec.Raw) -> tuple[str, list[Write]]:
        if slow.exists():
            time.sleep(float(slow.read_text()))
        return checked_writes(engine, arguments)

    server.checked_writes = braked  # type: ignore[attr-defined]  # the name that the server calls
    return process.serve_forever(data=data, engine=engine, socket_path=socket)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
