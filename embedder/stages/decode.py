"""Decoding as the worker sees it: a pool of children, each of which one picture may cost and no more."""

from __future__ import annotations

import json
import mmap
import os
import queue
import select
import site
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from embedder.models.protocol import Pixels
from embedder.stages.decode_child import MAX_ANSWER_BYTES, PREPROCESSING_IDS, PREPROCESSINGS, REQUEST, output_bytes
from streams.errors import ConfigError, EventError, Reason, RetryableError

START_TIMEOUT_S = 30.0
_CHILD = Path(__file__).with_name("decode_child.py")
_GROW_BYTES = 8 * 1024 * 1024
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 1024 * 1024),
    "MALLOC_TOP_PAD_": str(16 * 1024 * 1024),
}
"""numpy's threads would take address space for each core, out of the little that a child has. malloc keeps the pages
of one picture for the next: asking the kernel for them anew took up to a quarter of a picture's time."""


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """What is asked of every picture. `resample` is "bilinear" or "bicubic", `preprocessing` one of
    `decode_child.PREPROCESSINGS`; see there."""

    input_px: int
    resample: str
    max_pixels: int = 50_000_000
    min_side_px: int = 8
    timeout_s: float = 10.0
    preprocessing: str = "full"

    @property
    def preprocessing_id(self) -> str:
        """What names the collection, together with the model."""
        return PREPROCESSING_IDS[self.preprocessing]


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """RGB pixels (input_px, input_px, 3) in float16, and the upright picture's size before the resize."""

    pixels: Pixels
    width_px: int
    height_px: int
    format: str


class ChildGoneError(Exception):
    """The child hung or died; `reason` is decoder_timeout or decoder_crashed."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class DecodePool:
    """`n_children` processes. Blocks; thread-safe: as many pictures at once as there are children."""

    def __init__(self, n_children: int, rules: DecodeRules, *, script: Path = _CHILD) -> None:
        """Start the children; `script` is another child for tests.

        Raises:
            ConfigError: a child does not start.
        """
        self._rules = rules
        self._script = script
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._children: set[_Child] = set()
        # Linux ends a child with the thread that started it: this one lives as long as the pool
        self._starter = ThreadPoolExecutor(1, "decoder-start")
        try:
            for child in [self._start() for _ in range(n_children)]:
                child.wait_ready()
                self._idle.put(child)
        except ChildGoneError as exc:
            raise ConfigError(f"the decoder process does not start: {exc.message}") from exc
        finally:
            if self._idle.qsize() < n_children:
                self.close()

    def decode(self, data: bytes) -> DecodedPicture:
        """Pixels of a picture.

        Raises:
            EventError: an `image_*` reason; this picture can never be decoded.
            RetryableError: decoder_timeout or decoder_crashed; the child was replaced.
        """
        if not data:
            raise EventError(Reason.IMAGE_EMPTY, "the object has no bytes")
        child = self._idle.get()
        try:
            answer, pixels = child.ask(data, self._rules)
        except ChildGoneError as exc:
            child = self._replace(child)
            raise RetryableError(exc.reason, exc.message) from exc
        finally:
            self._idle.put(child)
        if pixels is None:
            raise EventError(Reason(answer["reason"]), answer["message"])
        return DecodedPicture(pixels, answer["width_px"], answer["height_px"], answer["format"])

    def pids(self) -> list[int]:
        """The children that live now."""
        with self._lock:
            return [child.process.pid for child in self._children]

    def close(self) -> None:
        """End all children; what is being decoded fails."""
        with self._lock:
            self._closed = True
            children, self._children = self._children, set()
        for child in children:
            child.end()
        self._starter.shutdown()

    def _start(self) -> _Child:
        """A child that is ended by :meth:`close`, whenever that comes.

        Raises:
            ChildGoneError: the pool is closed, or the system gives no process.
        """
        with self._lock:  # held over the start: no child appears after the pool has been closed
            if self._closed:
                raise ChildGoneError(Reason.DECODER_CRASHED, "the decoders were closed")
            try:
                child = self._starter.submit(_Child, self._script).result()
            except OSError as exc:
                raise ChildGoneError(Reason.DECODER_CRASHED, f"no process can be started: {exc.strerror}") from exc
            self._children.add(child)
        return child

    def _replace(self, gone: _Child) -> _Child:
        """A new child at once: the next picture finds it started."""
        with self._lock:
            self._children.discard(gone)
        gone.end()
        try:
            return self._start()
        except ChildGoneError:
            return gone  # whoever takes it finds it gone, and tries to replace it again


class _Child:
    """One process, its socket and the memory shared with it. One picture at a time."""

    def __init__(self, script: Path) -> None:
        self._memory_fd = os.memfd_create("lookalike-picture", os.MFD_CLOEXEC)
        # the pool's close and the thread whose picture is lost both end a child: a number that was closed may by then
        # belong to another file, which must be neither closed nor truncated
        self._memory_lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._memory: mmap.mmap | None = None
        self._ready = False
        with theirs:
            descriptors = (self._memory_fd, theirs.fileno())
            arguments = [str(descriptors[0]), str(descriptors[1]), str(os.getpid()), *_library_folders()]
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-W", "ignore", str(script), *arguments],
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    env=_ENVIRONMENT,
                )
            except OSError:
                os.close(self._memory_fd)
                self._socket.close()
                raise

    def wait_ready(self) -> None:
        """Until it has loaded Pillow and numpy.

        Raises:
            ChildGoneError: it did not start.
        """
        if not self._ready:
            self._receive(START_TIMEOUT_S)
            self._ready = True

    def ask(self, data: bytes, rules: DecodeRules) -> tuple[dict[str, Any], Pixels | None]:
        """The child's answer, and the pixels where it decoded the picture.

        Raises:
            ChildGoneError: it hangs or died.
        """
        self.wait_ready()  # a replacement was started while nobody waited for it
        start = output_bytes(rules.input_px)
        memory = self._room(start + len(data))
        memory[start : start + len(data)] = data
        bicubic = int(rules.resample == "bicubic")
        number = PREPROCESSINGS.index(rules.preprocessing)
        request = REQUEST.pack(
            len(data), rules.input_px, bicubic, rules.max_pixels, rules.min_side_px, number, len(memory)
        )
        try:
            self._socket.send(request)
        except OSError as exc:
            raise ChildGoneError(Reason.DECODER_CRASHED, f"the decoder was gone: {exc.strerror}") from exc
        answer = self._receive(rules.timeout_s)
        if "reason" in answer:
            return answer, None
        pixels = np.frombuffer(memory, np.float16, start // 2).reshape(rules.input_px, rules.input_px, 3)
        return answer, pixels.copy()

    def end(self) -> None:
        """Kill it and let go of what is shared. Twice is harmless, also at the same time."""
        self.process.kill()
        self.process.wait()
        self._socket.close()
        with self._memory_lock:
            memory_fd, self._memory_fd = self._memory_fd, -1
        if memory_fd >= 0:
            os.close(memory_fd)

    def _room(self, n_bytes: int) -> mmap.mmap:
        """The shared memory, grown where the picture needs it."""
        if self._memory is None or len(self._memory) < n_bytes:
            size = -(-n_bytes // _GROW_BYTES) * _GROW_BYTES
            try:
                with self._memory_lock:
                    os.ftruncate(self._memory_fd, size)
                    self._memory = mmap.mmap(self._memory_fd, size)
            except OSError as exc:
                raise ChildGoneError(Reason.DECODER_CRASHED, f"no memory to share: {exc.strerror}") from exc
        return self._memory

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        try:
            readable, _, _ = select.select([self._socket], [], [], timeout_s)
            message = self._socket.recv(MAX_ANSWER_BYTES) if readable else None
        except (OSError, ValueError) as exc:
            raise ChildGoneError(Reason.DECODER_CRASHED, f"the decoder was gone: {exc}") from exc
        if message is None:
            raise ChildGoneError(Reason.DECODER_TIMEOUT, f"not decoded within {timeout_s:g} s")
        if not message:
            code = self.process.wait(5)
            raise ChildGoneError(Reason.DECODER_CRASHED, f"the decoder ended with {code}")
        answer: dict[str, Any] = json.loads(message)
        return answer


def _library_folders() -> list[str]:
    """Where Pillow, numpy and this package lie: the child starts without the site packages."""
    folders = (str(Path(PIL.__file__).parent.parent), *site.getsitepackages(), str(_CHILD.parents[2]))
    return list(dict.fromkeys(folders))
