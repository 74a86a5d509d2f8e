"""A folder as an object store: a bucket is a folder, a key a path below it. Nothing outside is ever opened.

Every path is opened one segment at a time, relative to the folder before it and without following
links, so neither `..` nor a link, nor one that appears between a check and the opening, leads outside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from embedder.objects.grants import is_plain_key
from embedder.objects.protocol import Object, ObjectInfo, ObjectMissingError
from streams.errors import ConfigError, DependencyError, EventError, Reason, RetryableError
from streams.event import Location

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OBJECT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold the thread
_FORBIDDEN = {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}
_MISSING = {errno.ENOENT}
_SCRATCH = re.compile(r"\.[0-9a-f]{32}\.part\Z")


class FolderStore:
    """ETag: inode, size and modification time in nanoseconds. It changes whenever :meth:`put` replaces an object."""

    def __init__(self, root: Path) -> None:
        """`root` must be a folder.

        Raises:
            ConfigError: it is not.
        """
        if not root.is_dir():
            raise ConfigError(f"{root} is no folder: create it, or set LOOKALIKE_OBJECTS_DIR to where pictures lie")
        self._root = root

    def head(self, location: Location) -> ObjectInfo:
        with self._opened(location) as descriptor:
            return _info(os.fstat(descriptor))

    def get(self, location: Location, *, max_bytes: int) -> Object:
        with self._opened(location) as descriptor:
            before = _info(os.fstat(descriptor))
            if before.size_bytes > max_bytes:
                message = f"{before.size_bytes} bytes, {max_bytes} are allowed"
                raise EventError(Reason.IMAGE_TOO_LARGE, message)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(max_bytes + 1)
            if _info(os.fstat(descriptor)) != before or len(data) != before.size_bytes:
                raise RetryableError(Reason.IMAGE_MISSING, "the object changed while it was read")
            return Object(before, data)

    def put(self, bucket: str, key: str, data: bytes, *, content_type: str | None = None) -> ObjectInfo:
        del content_type  # a folder keeps bytes only
        with self._parent(bucket, key, create=True) as (parent, name):
            scratch = f".{uuid.uuid4().hex}.part"  # as in _SCRATCH
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(scratch, flags, 0o644, dir_fd=parent)
            try:
                with open(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    now_ns = time.time_ns()  # the kernel's own stamp stands still for milliseconds
                    os.utime(descriptor, ns=(now_ns, now_ns))
                    os.fsync(descriptor)
                    info = _info(os.fstat(descriptor))
                os.rename(scratch, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(scratch, dir_fd=parent)
                raise
            return info

    def delete(self, bucket: str, key: str) -> None:
        try:
            with self._parent(bucket, key, create=False) as (parent, name):
                os.unlink(name, dir_fd=parent)
        except ObjectMissingError:
            return  # it is not there: what was wanted

    def keys(self, bucket: str, folder: str) -> Iterator[str]:
        try:
            with self._parent(bucket, folder + "x", create=False) as (parent, _):
                yield from _walk(parent, folder)
        except ObjectMissingError:
            return

    def check(self, bucket: str) -> None:
        """The folder must be there, readable and writable; a bucket is made by the first `put`."""
        below = self._root / bucket
        there = below if below.is_dir() else self._root
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise DependencyError("bucket", f"{there} cannot be read and written: create it, or its permissions")

    @contextlib.contextmanager
    def _opened(self, location: Location) -> Iterator[int]:
        with self._parent(location.bucket, location.key, create=False) as (parent, name):
            descriptor = os.open(name, _OBJECT, dir_fd=parent)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise EventError(Reason.LOCATION_FORBIDDEN, "this is no object")
                yield descriptor
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _parent(self, bucket: str, key: str, *, create: bool) -> Iterator[tuple[int, str]]:
        """The opened folder of `key` and its last segment; foreign errors become ours here."""
        if not is_plain_key(bucket) or "/" in bucket or not is_plain_key(key):
            raise EventError(Reason.LOCATION_FORBIDDEN, "this is no plain object key")
        *folders, name = [bucket, *key.split("/")]
        try:
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise DependencyError("bucket", f"the folder {self._root} cannot be read: {exc.strerror}") from exc
        try:
            for folder in folders:
                below = _enter(descriptor, folder, create=create)
                os.close(descriptor)
                descriptor = below
            yield descriptor, name
        except OSError as exc:
            raise _translated(exc) from exc
        finally:
            os.close(descriptor)


def _enter(parent: int, folder: str, *, create: bool) -> int:
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o755, dir_fd=parent)
    return os.open(folder, _FOLDER, dir_fd=parent)


def _walk(top: int, folder: str) -> Iterator[str]:
    """The plain files below an opened folder, as keys; links are not followed, what is being put is not there yet."""
    for below, _, names, descriptor in os.fwalk(dir_fd=top, follow_symlinks=False):
        within = below.removeprefix(".").removeprefix("/")
        for name in names:
            if _SCRATCH.match(name) is None and stat.S_ISREG(os.lstat(name, dir_fd=descriptor).st_mode):
                yield folder + (f"{within}/{name}" if within else name)


def _translated(error: OSError) -> EventError | RetryableError | DependencyError:
    """One object's trouble is that object's; only a disk that fails or is full is everybody's."""
    if error.errno in _FORBIDDEN:
        return EventError(Reason.LOCATION_FORBIDDEN, "this path leads through a link")
    if error.errno in _MISSING:
        return ObjectMissingError()
    if error.errno in {errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENXIO}:
        return EventError(Reason.LOCATION_FORBIDDEN, "this is no object")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return RetryableError(Reason.IMAGE_MISSING, f"the object cannot be read: {error.strerror}")
    return DependencyError("bucket", f"the folder fails: {error.strerror}")


def _info(found: os.stat_result) -> ObjectInfo:
    etag = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"
    return ObjectInfo(etag, found.st_size, modified_us=found.st_mtime_ns // 1000)
