"""The process that looks at query pictures for an API: ``python -m embedder.query_embedder_child FD``.

Decoding runs in children of its own, as in the worker, so a picture that crashes a decoder costs one
answer. The network runs in the main thread, thumbnails on another: a page full of them must not keep a
search waiting. Ends when the socket closes, whatever the other threads are doing.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from embedder import query_embedder_wire as wire
from embedder.index.protocol import CollectionSpec
from embedder.models.protocol import Engine, Pixels
from embedder.models.vectors import check_vector
from embedder.query_embedder_wire import THUMBNAIL_PX, Want
from embedder.stages.fetch import Decoded, Decoder
from streams.errors import ConfigError, EventError, Reason, RetryableError


@dataclass(frozen=True, slots=True)
class Eyes:
    """What the child works with: a decoder for the network, another one whose square is a thumbnail's."""

    spec: CollectionSpec
    engine: Engine
    decoder: Decoder
    thumbnails: Decoder


def main() -> None:
    """The composition root of this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this ends
    serve(socket.socket(fileno=int(sys.argv[1])), open_eyes)


def open_eyes(setup: wire.Setup) -> Eyes:
    """The worker's own decoder and network. Takes seconds. Raises ConfigError (no weights, a refused engine)."""
    from embedder.vision import Vision  # noqa: PLC0415 - loads while the socket is being read
    from embedder.vision_options import VisionOptions  # noqa: PLC0415

    vision = Vision(
        VisionOptions(
            model=setup.model,
            weights=None if setup.weights is None else Path(setup.weights),
            weights_sha256=setup.weights_sha256,
            engine=setup.engine,
            preprocessing=setup.preprocessing,
            cache=None if setup.cache is None else Path(setup.cache),
            max_pixels=setup.max_pixels,
            decode_timeout_s=setup.decode_timeout_s,
        )
    )
    return Eyes(
        spec=vision.spec,
        decoder=vision.open_decoder(1),
        thumbnails=vision.open_thumbnails(THUMBNAIL_PX),
        engine=vision.open_engine().engine,
    )


def serve(sock: socket.socket, open_: Callable[[wire.Setup], Eyes]) -> None:
    """Answer until the socket closes; returns only where `open_` refuses."""
    first = wire.receive(sock)
    if first is None:
        return
    asked = {want: SimpleQueue[wire.Ask]() for want in Want}
    threading.Thread(target=_sort, args=(sock, asked), name="read", daemon=True).start()
    try:
        eyes = open_(wire.decode_setup(first))
    except ConfigError as exc:
        wire.send(sock, wire.Refused(str(exc)))
        return
    wire.send(sock, wire.Ready(eyes.spec.model_id, eyes.spec.preprocessing_id, eyes.spec.dim))
    sending = threading.Lock()

    def answer(want: Want, look: Callable[[bytes], bytes]) -> None:
        while True:
            reply = _look(asked[want].get(), look)
            with sending:
                wire.send(sock, reply)

    thumbnails = (Want.THUMBNAIL, lambda data: jpeg_of(eyes.thumbnails.decode(data)))
    threading.Thread(target=answer, args=thumbnails, name="thumbnails", daemon=True).start()
    answer(Want.VECTOR, lambda data: _vector(eyes, data))


def _sort(sock: socket.socket, asked: dict[Want, SimpleQueue[wire.Ask]]) -> None:
    """Hand every picture to its thread. The parent bounds what may wait."""
    while (message := wire.receive(sock)) is not None:
        ask = wire.decode_ask(message)
        asked[ask.want].put(ask)
    os._exit(0)  # the parent is gone: there is nobody to finish anything for


def _look(ask: wire.Ask, look: Callable[[bytes], bytes]) -> wire.Reply:
    try:
        return wire.Reply(ask.number, look(ask.data))
    except (EventError, RetryableError) as exc:
        failure = wire.Failure(exc.reason, exc.message, isinstance(exc, EventError))
    except Exception:  # noqa: BLE001 - this process's loop: one picture must not end it for the others
        traceback.print_exc()
        failure = wire.Failure(Reason.INTERNAL_ERROR, "something unexpected; the log has it", for_good=False)
    return wire.Reply(ask.number, b"", failure)


def _vector(eyes: Eyes, data: bytes) -> bytes:
    pixels = eyes.decoder.decode(data).pixels
    vector = eyes.engine.embed(pixels[np.newaxis])[0]
    check_vector(vector, eyes.spec.dim)
    data_out: bytes = vector.astype(np.float32, copy=False).tobytes()
    return data_out


def jpeg_of(decoded: Decoded) -> bytes:
    """A JPEG in the picture's own shape from the decoder's square; never larger than the picture was."""
    width_px, height_px = thumbnail_size(decoded.width_px, decoded.height_px)
    return _encode(decoded.pixels, width_px, height_px)


def thumbnail_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Width and height of the thumbnail of a picture of this size."""
    scale = min(1.0, THUMBNAIL_PX / max(width_px, height_px))
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def _encode(pixels: Pixels, width_px: int, height_px: int) -> bytes:
    from PIL import Image  # noqa: PLC0415 - only encodes: these pixels came out of the decoder's sandbox

    bytes_ = np.rint(np.clip(pixels.astype(np.float32), 0, 255)).astype(np.uint8)
    image = Image.fromarray(bytes_).resize((width_px, height_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
