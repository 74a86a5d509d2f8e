"""An embedding child without a network, whose pictures can misbehave: ``python -m tests.hash_eyes FD``.

Any bytes are a picture, but ``bad…`` (none), ``boom`` (an unexpected error), ``hang`` (for ever), ``crash``
(ends the process) and ``crash-once:PATH`` (ends it unless PATH is there, and makes it). The model `none`
has no weights, `dies` ends before it is ready, `slow` takes ten minutes to load.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

from embedder import query_embedder_wire as wire
from embedder.index.protocol import CollectionSpec
from embedder.models.hash_engine import HashEngine
from embedder.query_embedder_child import Eyes, serve
from embedder.stages.hash_decoder import HashDecoder, HashPicture
from streams.errors import ConfigError, Reason, RetryableError

DIM = 64


class RowdyDecoder(HashDecoder):
    """A decoder in the very process that should be spared."""

    def decode(self, data: bytes) -> HashPicture:
        if data.startswith(b"crash-once:"):
            flag = Path(data.removeprefix(b"crash-once:").decode())
            if not flag.exists():
                flag.touch()
                os._exit(9)
        if data == b"crash":
            os._exit(9)
        if data == b"hang":
            threading.Event().wait()
        if data == b"boom":
            raise RuntimeError("boom")
        if data == b"later":
            raise RetryableError(Reason.DECODER_TIMEOUT, "too slow")
        return super().decode(data)


def open_eyes(setup: wire.Setup) -> Eyes:
    """What the real child opens, without torch."""
    if setup.model == "none":
        raise ConfigError("no weights: fetch them")
    if setup.model == "dies":
        os._exit(7)
    if setup.model == "slow":
        threading.Event().wait(600)
    return Eyes(
        CollectionSpec(setup.model, "test", DIM), HashEngine(dim=DIM), RowdyDecoder(), RowdyDecoder(input_px=256)
    )


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), open_eyes)
