"""What becomes of a bad day of S3: the object's trouble, or everybody's; and what is asked of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedder.objects.protocol import ObjectMissingError
from embedder.objects.s3 import PROBE_KEY, S3Store, _place
from streams.errors import ConfigError, DependencyError, EventError, Reason, RetryableError
from streams.event import Location
from tests.scripted_s3 import HANG, RESET, ScriptedS3, answer, found, refusal

CAT = Location("images", "acme/cat.jpg")
GET, HEAD, PUT = (f"{method} /images/acme/cat.jpg" for method in ("GET", "HEAD", "PUT"))
PROBE = f"GET /images/{PROBE_KEY}"
PLENTY = 1 << 20


@pytest.fixture
def server() -> Iterator[ScriptedS3]:
    with ScriptedS3() as running:
        yield running


@pytest.fixture
def store(server: ScriptedS3) -> S3Store:
    return S3Store(server.endpoint, access_key="key", secret_key="secret", read_timeout_s=0.3)


def _get(store: S3Store) -> object:
    return store.get(CAT, max_bytes=PLENTY)


def _head(store: S3Store) -> object:
    return store.head(CAT)


def _put(store: S3Store) -> object:
    return store.put(CAT.bucket, CAT.key, b"picture")


def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


TROUBLE = {
    "one server error": refusal(500, "InternalError"),
    "too busy": refusal(503, "SlowDown"),
    "a proxy's page": answer(502, b"<html>", headers=("Content-Type: text/html",)),
    "an error without words": answer(503),
    "a broken error": answer(503, b"<Error><Code>", headers=("Content-Type: application/xml",)),
    "refused": refusal(403, "AccessDenied"),
    "archived": refusal(403, "InvalidObjectState"),
    "silence": HANG,
    "a broken connection": RESET,
}
NO_ANSWER = {
    "without an etag": answer(200, b"x"),
    "a length that is none": answer(200, headers=('ETag: "e"', "Content-Length: x")),
}


@pytest.mark.parametrize("call", [_get, _head, _put])
@pytest.mark.parametrize("said", [pytest.param(said, id=name) for name, said in TROUBLE.items()])
def test_one_objects_trouble_is_tried_again(
    server: ScriptedS3, store: S3Store, call: Callable[[S3Store], object], said: bytes
) -> None:
    """The store answers for other objects: no pause, and nothing that says the object is gone."""
    for request in (GET, HEAD, PUT):
        server.say(request, said)
    with pytest.raises(RetryableError) as caught:
        call(store)
    assert not isinstance(caught.value, ObjectMissingError)
    assert caught.value.reason is Reason.IMAGE_MISSING
    assert PROBE in server.asked


@pytest.mark.parametrize("call", [_get, _head, _put])
@pytest.mark.parametrize("said", [pytest.param(said, id=name) for name, said in TROUBLE.items() if name != "archived"])
def test_the_same_from_the_whole_store_is_an_outage(
    server: ScriptedS3, store: S3Store, call: Callable[[S3Store], object], said: bytes
) -> None:
    """Also the object that is never there gets no answer: nothing may be dead-lettered for that."""
    for request in (GET, HEAD, PUT, PROBE):
        server.say(request, said)
    with pytest.raises(DependencyError) as caught:
        call(store)
    assert caught.value.dependency == "bucket"
    assert server.endpoint in caught.value.message
    with pytest.raises(DependencyError):
        store.check(CAT.bucket)


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "InvalidAccessKeyId", "LOOKALIKE_S3_ACCESS_KEY"),
        (403, "SignatureDoesNotMatch", "LOOKALIKE_S3_SECRET_KEY"),
        (400, "ExpiredToken", "LOOKALIKE_S3_SESSION_TOKEN"),
        (404, "XAdminUserNotFound", "LOOKALIKE_S3_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "AuthorizationHeaderMalformed", "LOOKALIKE_S3_REGION"),
        (301, "PermanentRedirect", "LOOKALIKE_S3_REGION"),
        (403, "AccessDenied", "ListBucket"),
    ],
)
def test_a_store_that_lets_nobody_in_is_an_outage_that_says_what_to_do(
    server: ScriptedS3, store: S3Store, status: int, code: str, advice: str
) -> None:
    """A rotated key dead-letters nothing. A HEAD is refused without a word: what it was is asked by a GET."""
    server.say(HEAD, answer(status))
    for request in (GET, PROBE):
        server.say(request, refusal(status, code))
    for call in (_get, _head, lambda one: one.check(CAT.bucket)):
        with pytest.raises(DependencyError, match=advice):
            call(store)


@pytest.mark.parametrize("call", [_get, _head])
@pytest.mark.parametrize("said", [pytest.param(said, id=name) for name, said in NO_ANSWER.items()])
def test_an_answer_that_says_too_little_is_tried_again(
    server: ScriptedS3, store: S3Store, call: Callable[[S3Store], object], said: bytes
) -> None:
    """An object without a revision or a length could not be told from the next one."""
    for request in (GET, HEAD):
        server.say(request, said)
    with pytest.raises(RetryableError):
        call(store)


def test_a_short_read_is_tried_again(server: ScriptedS3, store: S3Store) -> None:
    """Fewer bytes than were promised: never given as the picture."""
    server.say(GET, found(b"half", length=8))
    with pytest.raises(RetryableError) as caught:
        _get(store)
    assert not isinstance(caught.value, ObjectMissingError)
    server.say(GET, found(b"half"))
    assert store.get(CAT, max_bytes=4).data == b"half"


def test_bytes_of_another_etag_are_tried_again(server: ScriptedS3, store: S3Store) -> None:
    """The new object's ETag with the old one's bytes would be remembered as the new picture for ever."""
    old, new = b"old", b"new"
    server.say(GET, found(old, etag=_md5(new)), found(new, etag=_md5(new)))
    with pytest.raises(RetryableError, match="changed while"):
        _get(store)
    assert store.get(CAT, max_bytes=PLENTY).data == new


def test_a_store_whose_etags_are_no_hashes_is_believed(server: ScriptedS3, store: S3Store) -> None:
    """Encrypted objects have ETags that only look like hashes: seen twice alike, they are not asked about again."""
    server.say(GET, found(b"picture", etag=_md5(b"cipher")))
    for _ in range(3):
        assert store.get(CAT, max_bytes=PLENTY).data == b"picture"
    assert server.asked == [GET] * 4


def test_what_is_too_large_is_not_read(server: ScriptedS3, store: S3Store) -> None:
    """A terabyte is refused by its announced length, before its first byte."""
    server.say(GET, found(b"", length=1 << 40))
    with pytest.raises(EventError) as caught:
        _get(store)
    assert caught.value.reason is Reason.IMAGE_TOO_LARGE


def test_a_kept_connection_that_was_closed_meanwhile_is_no_trouble(server: ScriptedS3, store: S3Store) -> None:
    """One reset is answered by one more try on a new connection."""
    server.say(GET, RESET, found(b"picture"))
    assert store.get(CAT, max_bytes=PLENTY).data == b"picture"


def test_bytes_are_given_as_they_are_stored(server: ScriptedS3, store: S3Store) -> None:
    """A Content-Encoding is the object's own word, not one for the client to act on."""
    server.say(GET, found(b"not gzip", more=("Content-Encoding: gzip",)))
    assert store.get(CAT, max_bytes=PLENTY).data == b"not gzip"


@pytest.mark.parametrize(("told", "etag"), [('"e1"', "e1"), ("e1", "e1"), ('W/"e1"', "e1"), ('"a-3"', "a-3")])
def test_an_etag_has_no_quotes(server: ScriptedS3, store: S3Store, told: str, etag: str) -> None:
    """However a store writes it."""
    server.say(HEAD, found(b"12", etag=told))
    assert store.head(CAT).etag == etag


def test_only_what_was_put_at_this_place_counts_as_announced(server: ScriptedS3, store: S3Store) -> None:
    """A copy takes the metadata along to a place that nobody has announced."""
    for place, announced in ((_place(CAT.bucket, CAT.key), True), (_place(CAT.bucket, "acme/other.jpg"), False)):
        server.say(HEAD, found(b"12", more=(f"x-amz-meta-lookalike-announced: {place}",)))
        assert store.head(CAT).announced is announced


@pytest.mark.parametrize(("status", "code"), [(404, "NoSuchKey"), (404, "NoSuchBucket"), (404, "NoSuchVersion")])
def test_only_the_stores_own_word_means_missing(server: ScriptedS3, store: S3Store, status: int, code: str) -> None:
    """That nothing is there is never guessed from a failure."""
    server.say(GET, refusal(status, code))
    server.say(HEAD, answer(404))
    for call in (_get, _head):
        with pytest.raises(ObjectMissingError):
            call(store)


def test_a_404_that_is_not_the_stores_deletes_nothing(server: ScriptedS3, store: S3Store) -> None:
    """An ingress whose server is gone says 404 to everything: who watches the bucket must not take that for empty."""
    page = answer(404, b"404 page not found", headers=("Content-Type: text/plain",))
    for request in (GET, HEAD, PROBE, f"DELETE{GET[3:]}"):
        server.say(request, page)
    for call in (_get, _head, lambda one: one.delete(CAT.bucket, CAT.key)):
        with pytest.raises(DependencyError, match="does not serve"):
            call(store)


def test_a_put_needs_its_bucket(server: ScriptedS3, store: S3Store) -> None:
    """The operator makes it: the error says which, and no picture is at fault."""
    server.say(PUT, refusal(404, "NoSuchBucket"))
    with pytest.raises(DependencyError, match="there is no bucket images at"):
        _put(store)
    server.say(PROBE, refusal(404, "NoSuchBucket"))
    with pytest.raises(DependencyError, match="create it"):
        store.check("images")


@pytest.mark.parametrize("bucket", ["", "a", "../x", "Images!", "x" * 64, "a/b"])
def test_what_no_bucket_can_be_called_is_refused(store: S3Store, bucket: str) -> None:
    """Before anything is asked."""
    with pytest.raises(EventError) as caught:
        store.head(Location(bucket, "cat.jpg"))
    assert caught.value.reason is Reason.LOCATION_FORBIDDEN


def test_a_server_that_is_not_there_is_an_outage_at_once() -> None:
    """Refused connections are not asked twice."""
    with ScriptedS3() as gone:
        store = S3Store(gone.endpoint, access_key="key", secret_key="secret")
    with pytest.raises(DependencyError, match="does not serve"):
        store.head(CAT)


@pytest.mark.parametrize(
    "endpoint", ["s3.example.com", "ftp://host", "http://", "http://host/bucket", "http://host?x=1"]
)
def test_what_is_no_endpoint_is_a_config_error(endpoint: str) -> None:
    """At the start, with an example."""
    with pytest.raises(ConfigError, match="is no S3 endpoint"):
        S3Store(endpoint)


def test_a_ca_file_without_certificates_is_a_config_error(tmp_path: Path) -> None:
    """Falling back to other certificates would be a silent change."""
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="LOOKALIKE_S3_CA_FILE"):
        S3Store("https://host", ca_file=tmp_path / "ca.pem")


def test_requests_are_signed_for_the_region_with_the_token_of_temporary_keys(server: ScriptedS3) -> None:
    """The bucket is never asked for its region; without keys nothing is signed."""
    server.say(HEAD, found(b"12"))
    S3Store(server.endpoint, region="eu-central-1", access_key="key", secret_key="secret", session_token="t0ken").head(
        CAT
    )
    S3Store(server.endpoint).head(CAT)
    signed, anonymous = server.headers
    assert "key/" in signed["authorization"]
    assert "/eu-central-1/s3/aws4_request" in signed["authorization"]
    assert signed["x-amz-security-token"] == "t0ken"
    assert "authorization" not in anonymous
    assert server.asked == [HEAD, HEAD]


@pytest.mark.parametrize(
    ("path_style", "asked"), [(True, "http://127.0.0.1:9/images/a%20b"), (False, "http://images.host:9/a%20b")]
)
def test_both_styles_of_addresses(path_style: bool, asked: str) -> None:
    """The bucket is in the path or in the host's name."""
    host = "127.0.0.1" if path_style else "host"
    store = S3Store(f"http://{host}:9", path_style=path_style)
    url = store._client._base_url.build(method="GET", region="r", bucket_name="images", object_name="a b")
    assert url.geturl() == asked
