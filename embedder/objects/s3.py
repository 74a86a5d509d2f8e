"""Any S3 as an object store, through the minio SDK. The one file that knows minio and its HTTP client.

What goes wrong is either one object's trouble or everybody's, and the answer itself often cannot tell
(a 503, a connection that breaks, a HEAD that is refused without a word). Then the store is asked for an
object that is never there: if that is answered, the trouble is the object's, to be tried again; if not,
the store is down, and nothing may be dead-lettered for it. A HEAD's 404 is asked after in the same way:
a proxy without a server behind it says 404, and so does versitygw to an access key that it does not know.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.helpers import check_bucket_name
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError, ReadTimeoutError

from embedder.objects.grants import is_plain_key
from embedder.objects.protocol import Object, ObjectInfo, ObjectMissingError
from streams.errors import ConfigError, DependencyError, EventError, LookalikeError, Reason, RetryableError
from streams.event import Location

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
"""Between two bytes, not for a whole object."""
MAX_CONNECTIONS = 64
"""Kept open; more threads than this open and close one per request."""
PROBE_KEY = ".lookalike-probe"
"""Never there: a store that says so answers."""
ANNOUNCED = "lookalike-announced"
"""Metadata of what `put` stored; its value names the place, because copying an object copies its metadata."""

_CHUNK_BYTES = 1 << 20
_MIN_PART_BYTES = 5 << 20
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion"})
_NO_OBJECT = frozenset({"KeyTooLongError", "KeyTooLong", "InvalidBucketName", "InvalidURI"})
_NOBODY_GETS_IN = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "PermanentRedirect",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "XAdminUserNotFound",  # versitygw's word for an access key that it does not know
    }
)
"""Wrong for every object alike: keys, clock, region."""


class S3Store:
    """Thread-safe; keeps its connections. Nothing is connected before the first call.

    The key needs GetObject, PutObject, DeleteObject and ListBucket: without the last, S3 answers 403
    instead of 404 for what is not there.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        region: str = "us-east-1",
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        path_style: bool = True,
        ca_file: Path | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        """`endpoint` is ``http[s]://host[:port]``. Without keys, requests are anonymous.

        Raises:
            ConfigError: no such endpoint can be, or `ca_file` holds no certificates.
        """
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigError(f"{endpoint} is no S3 endpoint: write it like https://s3.example.com:9000")
        self._endpoint = endpoint.rstrip("/")
        self._etags_are_hashes = True
        self._client = Minio(
            endpoint=parts.netloc,
            access_key=access_key,
            secret_key=secret_key,
            session_token=session_token,
            secure=parts.scheme == "https",
            region=region,  # given, so that no bucket is asked for its own
            http_client=_connections(ca_file, read_timeout_s),
        )
        choose = (
            self._client.disable_virtual_style_endpoint if path_style else self._client.enable_virtual_style_endpoint
        )
        choose()  # type: ignore[no-untyped-call]  # the SDK's

    def head(self, location: Location) -> ObjectInfo:
        with self._translated(location.bucket, location.key):
            found = self._client.stat_object(location.bucket, location.key)
            return _info(found.metadata or {}, location.bucket, location.key)

    def get(self, location: Location, *, max_bytes: int) -> Object:
        found = self._get(location, max_bytes)
        if self._etags_are_hashes and _contradicts(found):
            if self._get(location, max_bytes) != found:
                raise RetryableError(Reason.IMAGE_MISSING, "the object changed while it was read")
            self._etags_are_hashes = False  # as with keys of one's own: to read twice each time would double the work
        return found

    def _get(self, location: Location, max_bytes: int) -> Object:
        with self._translated(location.bucket, location.key):
            response = self._client.get_object(location.bucket, location.key)
            try:
                info = _info(response.headers, location.bucket, location.key)
                data = _read(response, info.size_bytes, max_bytes)
            except BaseException:
                response.close()  # what is unread makes the connection useless
                raise
            response.release_conn()
            return Object(info, data)

    def put(self, bucket: str, key: str, data: bytes, *, content_type: str | None = None) -> ObjectInfo:
        kind = content_type or "application/octet-stream"
        try:
            with self._translated(bucket, key):
                done = self._client.put_object(
                    bucket,
                    key,
                    io.BytesIO(data),
                    len(data),
                    content_type=kind,
                    metadata={ANNOUNCED: _place(bucket, key)},
                    part_size=max(len(data), _MIN_PART_BYTES),  # in one request: whole or not at all
                )
        except ObjectMissingError as exc:
            raise self._no_bucket(bucket) from exc
        return ObjectInfo(_unquoted(done.etag or ""), len(data), kind, announced=True)

    def delete(self, bucket: str, key: str) -> None:
        with contextlib.suppress(ObjectMissingError), self._translated(bucket, key):
            self._client.remove_object(bucket, key)

    def keys(self, bucket: str, folder: str) -> Iterator[str]:
        with contextlib.suppress(ObjectMissingError), self._translated(bucket, folder + "x"):
            for found in self._client.list_objects(bucket, prefix=folder, recursive=True):
                if found.object_name is not None and not found.is_dir:
                    yield found.object_name

    def check(self, bucket: str) -> None:
        if self._ask(bucket) == "NoSuchBucket":
            raise self._no_bucket(bucket)

    @contextlib.contextmanager
    def _translated(self, bucket: str, key: str) -> Iterator[None]:
        """Foreign errors become ours here."""
        if not is_plain_key(key) or not _is_bucket(bucket):
            raise EventError(Reason.LOCATION_FORBIDDEN, "this is no plain object key")
        try:
            yield
        except S3Error as exc:
            raise self._of_answer(exc, bucket) from exc
        except (InvalidResponseError, ServerError, HTTPError, ValueError, ParseError) as exc:
            raise self._of_trouble(exc, bucket) from exc

    def _of_answer(self, error: S3Error, bucket: str) -> LookalikeError:
        """What the store said in words of S3."""
        code = error.code or ""
        if code in _MISSING and error.response.data:
            return ObjectMissingError()
        if code in _NO_OBJECT:
            return EventError(Reason.LOCATION_FORBIDDEN, f"the store calls this no object ({code})")
        if code == "EntityTooLarge":
            return EventError(Reason.IMAGE_TOO_LARGE, "larger than the store takes")
        return self._of_trouble(error, bucket)

    def _of_trouble(self, error: Exception, bucket: str) -> LookalikeError:
        """Whose trouble it is: the object's, if the store answers otherwise."""
        if isinstance(error, S3Error) and error.code in _NOBODY_GETS_IN:
            return self._down(error)
        if isinstance(_cause(error), NewConnectionError | ConnectTimeoutError):
            return self._down(error)
        try:
            said = self._ask(bucket)
        except DependencyError as exc:
            return exc
        if isinstance(error, S3Error) and error.code in _MISSING and said in _MISSING:
            return ObjectMissingError()
        return RetryableError(Reason.IMAGE_MISSING, f"the object cannot be had: {_in_short(error)}")

    def _ask(self, bucket: str) -> str:
        """The code with which the store refuses an object that is never there. By GET: a HEAD's refusal has no words.

        Raises:
            DependencyError: no answer, or one that says nothing of objects. A key without ListBucket is told 403 of
                whatever is not there: then an object's 403 may be anybody's, and to wait loses nothing.
        """
        try:
            self._client.get_object(bucket, PROBE_KEY, length=1).close()
        except S3Error as exc:
            if exc.code == "AccessDenied":
                what = "grant GetObject, PutObject, DeleteObject and ListBucket to this access key"
                raise DependencyError("bucket", f"{self._endpoint} allows nothing in {bucket}: {what}") from exc
            if exc.code in _NOBODY_GETS_IN or exc.response.status >= 500 or exc.response.status == 429:
                raise self._down(exc) from exc
            return exc.code or ""
        except (InvalidResponseError, ServerError, HTTPError, ValueError, ParseError) as exc:
            raise self._down(exc) from exc
        return ""

    def _down(self, error: Exception) -> DependencyError:
        return DependencyError("bucket", f"{self._endpoint} does not serve: {_in_short(error)}{_advice(error)}")

    def _no_bucket(self, bucket: str) -> DependencyError:
        return DependencyError("bucket", f"there is no bucket {bucket} at {self._endpoint}: create it")


class _OnceMore(urllib3.Retry):
    """A kept connection that the server closes just then is tried once more on a new one; silence is not."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


def _connections(ca_file: Path | None, read_timeout_s: float) -> urllib3.PoolManager:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # SSLError is one
        raise ConfigError(f"LOOKALIKE_S3_CA_FILE={ca_file} holds no certificates: {exc.strerror or exc}") from exc
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
        maxsize=MAX_CONNECTIONS,
        ssl_context=context,
        retries=_OnceMore(total=None, connect=0, read=1, redirect=0, status=0, other=0),
    )


def _read(response: urllib3.BaseHTTPResponse, size_bytes: int, max_bytes: int) -> bytes:
    """All bytes, never more than `max_bytes` of them; what ends early is to be tried again."""
    if size_bytes > max_bytes:
        raise EventError(Reason.IMAGE_TOO_LARGE, f"{size_bytes} bytes, {max_bytes} are allowed")
    chunks, n_bytes = [], 0
    while chunk := response.read(_CHUNK_BYTES, decode_content=False):
        chunks.append(chunk)
        n_bytes += len(chunk)
        if n_bytes > size_bytes:
            break
    if n_bytes != size_bytes:
        raise RetryableError(Reason.IMAGE_MISSING, f"short read: {n_bytes} of {size_bytes} bytes came")
    return b"".join(chunks)


def _contradicts(found: Object) -> bool:
    """Whether an ETag that looks like the MD5 of the bytes is that of others: some servers give the new object's ETag
    with the old one's bytes while it is replaced (S3Proxy, versitygw without extended attributes)."""
    etag = found.info.etag
    looks = len(etag) == 32 and all(char in "0123456789abcdef" for char in etag)
    return looks and hashlib.md5(found.data, usedforsecurity=False).hexdigest() != etag


def _info(headers: Mapping[str, str], bucket: str, key: str) -> ObjectInfo:
    """Raises ValueError where a header that every S3 sends is missing."""
    if "etag" not in headers or "content-length" not in headers:
        raise ValueError("the answer has no ETag or no Content-Length")
    return ObjectInfo(
        etag=_unquoted(headers["etag"]),
        size_bytes=int(headers["content-length"]),
        content_type=headers.get("content-type"),
        modified_us=_modified_us(headers.get("last-modified")),
        announced=headers.get(f"x-amz-meta-{ANNOUNCED}") == _place(bucket, key),
    )


def _modified_us(text: str | None) -> int | None:
    if text is None:
        return None
    at: datetime = parsedate_to_datetime(text)
    return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp()) * 1_000_000


def _unquoted(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def _place(bucket: str, key: str) -> str:
    """Metadata is ASCII and short; a key need be neither."""
    return hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()[:32]


def _is_bucket(name: str) -> bool:
    try:
        check_bucket_name(name)
    except ValueError:
        return False
    return True


def _cause(error: BaseException | None) -> BaseException | None:
    return error.reason if isinstance(error, MaxRetryError) else error


def _in_short(error: Exception) -> str:
    if isinstance(error, S3Error):
        return f"{error.code}: {error.message}"
    cause = _cause(error)
    return f"{type(cause).__name__}: {cause}"[:200]


def _advice(error: Exception) -> str:
    code = error.code if isinstance(error, S3Error) else None
    if code in ("AuthorizationHeaderMalformed", "PermanentRedirect"):
        return "; check LOOKALIKE_S3_REGION and LOOKALIKE_S3_PATH_STYLE"
    if code == "RequestTimeTooSkewed":
        return "; set this machine's clock"
    if code in _NOBODY_GETS_IN:
        return "; check LOOKALIKE_S3_ACCESS_KEY, LOOKALIKE_S3_SECRET_KEY and LOOKALIKE_S3_SESSION_TOKEN"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "; name its certificate authority in LOOKALIKE_S3_CA_FILE"
    return ""
