"""Decoding, in a process that may be killed: run as ``python -I -S decode_child.py FD FD SITE…``.

It knows Pillow, numpy and :mod:`float_resize`, so it starts in 0.2 s and holds little memory. Pictures and
pixels travel through one shared memory file (the first descriptor), requests and answers through a
socket (the second). It ends when the socket closes. :func:`decode_picture` is the whole of every
preprocessing in `PREPROCESSING_IDS`: what it does to a picture is part of every vector's meaning.
"""

from __future__ import annotations

import ctypes
import io
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as Picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
"""What is opened at all. Pillow would open 43 formats, one of them by running Ghostscript."""
HEIF = "HEIF"
PREPROCESSING_IDS = {"full": "full-v2", "scaled": "scaled-v2", "scaled-turbo": "scaled-turbo-v2"}
"""The rules of :func:`decode_picture`, decoder and resize included, by the word in the settings. Other rules
are another collection: change the id with them."""
PREPROCESSINGS = tuple(PREPROCESSING_IDS)
"""In the order of their numbers in a request."""
LEAST_TENTHS = {"scaled": 20, "scaled-turbo": 14}
"""A JPEG is decoded at 1/2, 1/4 or 1/8 while both sides stay so many tenths of the input side: below twice
the resize that follows sees what the decoder left out (docs/models.md has the fidelity of each)."""
REQUEST = struct.Struct("<QIIQIIQ")
"""Bytes of the picture; input side; 1 for bicubic; most pixels; least side; preprocessing; size of the memory file."""
MEMORY_BYTES = 512 * 1024 * 1024
"""Address space on top of what Python and Pillow need: a bomb ends in MemoryError within 0.3 s."""
MAX_ANSWER_BYTES = 4096
_SIDEWAYS = (5, 6, 7, 8)
"""Orientations whose rows are the upright picture's columns."""
_MIRRORS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""Steps through rows and columns, after rows and columns changed places where they do."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


DAMAGED = (OSError, ValueError, SyntaxError, struct.error, EOFError, ArithmeticError, LookupError, TypeError)
"""What Pillow's plugins let through for damaged files; anything else is a bug of ours or theirs."""


class RefusedError(Exception):
    """This picture can never be decoded; `reason` is one of the typed reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def decode_picture(
    data: bytes,
    *,
    input_px: int,
    bicubic: bool,
    max_pixels: int = 50_000_000,
    min_side_px: int = 8,
    preprocessing: str = "full",
) -> tuple[npt.NDArray[np.float16], int, int, str]:
    """The picture as the network wants it, with its upright size and its format.

    In order: the first frame; colours to RGB, transparency onto white; one resize of the whole picture in
    float32, whose aspect is not kept; upright by its EXIF orientation. What comes out is (`input_px`,
    `input_px`, 3), 0 to 255. The scaled preprocessings differ from `full` in JPEG files only.

    Raises:
        RefusedError: it cannot be had; `reason` tells why.
    """
    from PIL import Image, UnidentifiedImageError

    from embedder.stages.float_resize import resize

    if not data:
        raise RefusedError("image_empty", "the object has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, softer limit; ours follows
            picture: Picture = Image.open(io.BytesIO(data), formats=_formats())
        kind = picture.format or "?"
        _check_size(picture.size, max_pixels, min_side_px)
        width_px, height_px = picture.size
        extent = _draft(picture, input_px, preprocessing)
        picture.load()
        orientation = _orientation(picture)
        picture = _rgb(picture)  # one name for all: there is memory for two such pictures, not for three
        if extent is None:
            width_px, height_px = picture.size  # HEIF is turned by its library
        small = _upright(resize(picture, input_px, bicubic=bicubic, extent=extent), orientation)
    except RefusedError:
        raise
    except UnidentifiedImageError as exc:
        raise RefusedError(*_unidentified(data)) from exc
    except (Image.DecompressionBombError, MemoryError) as exc:
        raise RefusedError("image_too_large", f"it does not fit into memory: {exc}"[:300]) from exc
    except DAMAGED as exc:
        raise RefusedError("image_unreadable", f"{type(exc).__name__}: {exc}"[:300]) from exc
    if orientation in _SIDEWAYS:
        width_px, height_px = height_px, width_px
    return small, width_px, height_px, kind


def _draft(picture: Picture, input_px: int, preprocessing: str) -> tuple[float, float] | None:
    """Let libjpeg leave out what a smaller picture does not need; the whole picture's sides at that scale.

    The decoder rounds its sides up, so the picture ends inside of the last pixel: without it every vector
    moves by up to a pixel of the scaled picture (four times the error, docs/performance.md).
    None where nothing is scaled: other formats, small pictures, `full`.
    """
    from PIL import JpegImagePlugin

    least = LEAST_TENTHS.get(preprocessing)
    if least is None or not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return None
    width_px, height_px = picture.size
    scale = next((n for n in (8, 4, 2) if 10 * min(picture.size) >= n * least * input_px), 1)
    if scale == 1 or picture.draft(None, (width_px // scale, height_px // scale)) is None:
        return None
    if preprocessing == "scaled-turbo":  # libjpeg's quick inverse transform, and colour not interpolated
        picture.decoderconfig = (scale, 1)
    return (width_px / scale, height_px / scale)


def _formats() -> tuple[str, ...]:
    from PIL import Image

    try:
        import pillow_heif
    except ImportError:  # an extra
        return FORMATS
    if HEIF not in Image.OPEN:
        pillow_heif.register_heif_opener()
    return (*FORMATS, HEIF)


def _check_size(size: tuple[int, int], max_pixels: int, min_side_px: int) -> None:
    width_px, height_px = size
    if width_px * height_px > max_pixels:
        raise RefusedError("image_too_large", f"{width_px} x {height_px} pixels, {max_pixels} are allowed")
    if min(size) < min_side_px:
        raise RefusedError("image_too_small", f"{width_px} x {height_px} pixels, each side needs {min_side_px}")


def _unidentified(data: bytes) -> tuple[str, str]:
    """A known format whose header is broken is unreadable; anything else is no picture for us."""
    starts = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")
    if data.startswith(starts) or data[8:12] in (b"WEBP", b"avif", b"avis"):
        return "image_unreadable", "the header of the picture is damaged"
    return "image_unsupported", "not a picture in a format that is read here"


def _orientation(image: Picture) -> int:
    """What its EXIF says of how it lies, 1 to 8; a malformed EXIF turns nothing."""
    try:
        orientation = image.getexif().get(0x0112)
    except DAMAGED:  # whatever is wrong with the EXIF, the picture is there
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright(pixels: npt.NDArray[np.float16], orientation: int) -> npt.NDArray[np.float16]:
    """A square turned and mirrored as EXIF's orientation asks for; one of no known number stays."""
    if orientation in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = _MIRRORS.get(orientation, (1, 1))
    return pixels[::rows, ::columns]


def _rgb(image: Picture) -> Picture:
    """One rule a mode: nothing is clipped, hidden colours stay hidden."""

    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _from_deep_grey(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _strips(image: Picture) -> Iterator[tuple[int, Picture]]:
    """The picture in pieces of its full width, each with its top: what is made of one needs little memory."""
    width_px, height_px = image.size
    for top in range(0, height_px, 64):
        yield top, image.crop((0, top, width_px, min(top + 64, height_px)))


def _on_white(image: Picture) -> Picture:
    from PIL import Image

    rgb = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        seen = strip.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        rgb.paste(Image.alpha_composite(white, seen).convert("RGB"), (0, top))
    return rgb


def _from_deep_grey(image: Picture) -> Picture:
    """Grey values deeper than 8 bits, scaled: Pillow's own conversion clips everything above 255.

    16-bit values (also in a 32-bit mode) are divided by 257; floats from 0 to 1 are scaled, up to 255
    taken as they are; anything else is stretched from its least to its greatest.
    """
    import numpy as np
    from PIL import Image

    def values_of(strip: Picture) -> Any:
        return np.nan_to_num(np.asarray(strip, dtype=np.float64), posinf=0.0, neginf=0.0)

    ranges = [
        (float(values.min()), float(values.max())) for _, strip in _strips(image) for values in (values_of(strip),)
    ]
    low, high = min(least for least, _ in ranges), max(most for _, most in ranges)
    shift, factor = _scale(low, high, floats=image.mode == "F")
    grey = Image.new("L", image.size)
    for top, strip in _strips(image):
        scaled = np.rint((values_of(strip) - shift) * factor)
        grey.paste(Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)), (0, top))
    return grey


def _scale(low: float, high: float, *, floats: bool) -> tuple[float, float]:
    """What is taken off each value, and what it is then multiplied with."""
    if not floats and low >= 0 and high <= 65535:
        return 0.0, 1.0 / 257.0
    if floats and low >= 0 and high <= 1:
        return 0.0, 255.0
    if floats and low >= 0 and high <= 255:
        return 0.0, 1.0
    return low, 255.0 / (high - low) if high > low else 0.0


# ---- the process ---------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    memory_fd, socket_fd, parent = int(arguments[0]), int(arguments[1]), int(arguments[2])
    _end_with(parent)
    sys.path[:0] = arguments[3:]
    _load_plugins()
    _limit_memory()
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # it need not interrupt the network on its core
    conversation = socket.socket(fileno=socket_fd)
    conversation.send(b"{}")  # ready
    memory: mmap.mmap | None = None
    while request := conversation.recv(REQUEST.size):
        length, input_px, bicubic, max_pixels, min_side_px, number, size = REQUEST.unpack(request)
        if memory is None or len(memory) < size:
            memory = mmap.mmap(memory_fd, size)
        preprocessing = PREPROCESSINGS[number]
        conversation.send(_answer(memory, length, input_px, bool(bicubic), max_pixels, min_side_px, preprocessing))
    return 0


def _answer(
    memory: Any, length: int, input_px: int, bicubic: bool, max_pixels: int, min_side_px: int, preprocessing: str
) -> bytes:
    start = output_bytes(input_px)
    try:
        pixels, width_px, height_px, kind = decode_picture(
            memory[start : start + length],
            input_px=input_px,
            bicubic=bicubic,
            max_pixels=max_pixels,
            min_side_px=min_side_px,
            preprocessing=preprocessing,
        )
        memory[:start] = pixels.tobytes()
    except RefusedError as exc:
        return json.dumps({"reason": exc.reason, "message": exc.message}).encode()[:MAX_ANSWER_BYTES]
    except MemoryError:
        return json.dumps({"reason": "image_too_large", "message": "it does not fit into memory"}).encode()
    return json.dumps({"width_px": width_px, "height_px": height_px, "format": kind}).encode()


def output_bytes(input_px: int) -> int:
    """Bytes of the pixels (float16), which lie at the beginning of the memory file; the picture lies behind them."""
    return input_px * input_px * 3 * 2


def _load_plugins() -> None:
    """Open each format once while there is memory: a plugin imported under the limit could fail half-way."""
    from PIL import Image

    from embedder.stages import float_resize  # noqa: F401 - with numpy

    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before any pixel is decoded
    Image.init()
    _formats()


def _limit_memory() -> None:
    with open("/proc/self/statm") as statm:
        own = int(statm.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY_BYTES, own + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is reported by its parent


def _end_with(parent: int) -> None:
    """Never outlive the worker; Ctrl-C in a terminal is the worker's business."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
