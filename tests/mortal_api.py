"""An API process over real adapters that kills itself with -9 before or after a durable step.

    python -m tests.mortal_api '{"data": …, "socket": …, "bootstrap": …, "topic": …, "die": "after object"}'

It prints its address. `die` names the moment: before or after the object is stored, the event is
acknowledged, the index has written, the object is removed; empty for none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

STEPS = {"object": "put", "event": "announce", "index": "write", "removal": "delete"}
"""The word for each durable step, and the call that takes it."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """What is below it, but for one call: before or after that the process dies."""

    def __init__(self, below: Any, moment: str) -> None:
        self._below = below
        when, _, step = moment.partition(" ")
        self._when = when
        self._call = STEPS.get(step)

    def __getattr__(self, name: str) -> Any:
        below = getattr(self._below, name)
        if name != self._call:
            return below

        def call(*args: Any, **options: Any) -> Any:
            if self._when == "before":
                die()
            result = below(*args, **options)
            if name == "write":
                result.result(20)
            die()
            return result

        return call


def main(about: Mapping[str, str]) -> None:
    """Serve until killed."""
    from embedder.index.service.client import IndexClient
    from embedder.objects.folder import FolderStore
    from embedder.objects.grants import Grants
    from query_api import announce
    from query_api.app import create_app
    from query_api.deps import Deps
    from query_api.server import serve
    from streams.producer import KafkaProducer
    from tests.api_rig import BUCKET, PLACES, HashQueryEmbedder

    moment = about["die"]
    if moment.endswith("event"):
        whole = announce.Announcer.announce

        def announced(self: announce.Announcer, event: Any) -> None:
            if moment.startswith("before"):
                die()
            whole(self, event)
            die()

        announce.Announcer.announce = announced  # type: ignore[method-assign]
    client = {"bootstrap.servers": about["bootstrap"], "log_level": 0}
    index = IndexClient(Path(about["socket"]), timeout_s=5.0)
    deps = Deps(
        searcher=index,
        writer=Dying(index, moment),
        producer=KafkaProducer(client, message_timeout_ms=2_000),
        topic=about["topic"],
        objects=Dying(FolderStore(Path(about["data"])), moment),
        grants=Grants([BUCKET]),
        embedder=HashQueryEmbedder(),
        places=PLACES,
    )
    serve(create_app(deps), "127.0.0.1", 0, on_bound=lambda address: print(address, flush=True))  # noqa: T201 - its parent reads it


class MortalApi:
    """One such process; `with` starts it and leaves nothing behind."""

    def __init__(self, **about: str) -> None:
        self._about = {"die": "", **about}
        self._process: subprocess.Popen[str] | None = None
        self.http = httpx.Client(timeout=60)

    def __enter__(self) -> Self:
        root = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mortal_api", json.dumps(self._about)],
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.http.base_url = self._process.stdout.readline().strip()
        return self

    def died(self) -> int:
        """Its exit code; waits for its end."""
        assert self._process is not None
        return self._process.wait(60)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
