"""What every object store promises: a folder, memory and a real S3; then what only a folder can be asked."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedder.objects.folder import FolderStore, _translated
from embedder.objects.memory import MemoryObjects
from embedder.objects.protocol import ObjectMissingError, ObjectStore
from embedder.objects.s3 import S3Store
from lookalike.local.s3 import LocalS3
from streams.errors import ConfigError, DependencyError, EventError, Reason, RetryableError
from streams.event import Location, now_us

CAT = Location("images", "acme/2026/cat.jpg")
PLENTY = 1 << 30


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Each implementation in turn, empty."""
    if request.param == "folder":
        return FolderStore(tmp_path)
    if request.param == "memory":
        return MemoryObjects()
    server: LocalS3 = request.getfixturevalue("s3")
    for bucket in ("images", "thumbs"):
        shutil.rmtree(server.objects_dir / bucket, ignore_errors=True)
    server.make_buckets(("images", "thumbs"))
    address = server.address
    return S3Store(address.endpoint, access_key=address.access_key, secret_key=address.secret_key)


def _put(store: ObjectStore, data: bytes, *, at: Location = CAT) -> str:
    return store.put(at.bucket, at.key, data, content_type="image/jpeg").etag


class TestObjectStore:
    """The Protocol, case by case."""

    def test_what_was_put_is_given(self, store: ObjectStore) -> None:
        """All its bytes, with the etag and size that HEAD and PUT told."""
        put = store.put(CAT.bucket, CAT.key, b"picture")
        found = store.get(CAT, max_bytes=7)
        assert found.data == b"picture"
        assert (found.info.etag, found.info.size_bytes) == (put.etag, 7)
        assert store.head(CAT).etag == put.etag
        assert '"' not in put.etag

    def test_an_empty_object_is_given(self, store: ObjectStore) -> None:
        """That it is no picture is for the decoder to say."""
        _put(store, b"")
        assert store.get(CAT, max_bytes=0).data == b""

    def test_the_announced_etag_is_not_looked_at(self, store: ObjectStore) -> None:
        """What is there now is what is given."""
        _put(store, b"now")
        assert store.get(Location(CAT.bucket, CAT.key, etag="before", size_bytes=99), max_bytes=PLENTY).data == b"now"

    def test_other_bytes_have_another_etag(self, store: ObjectStore) -> None:
        """Also those of the same length, put within the same millisecond."""
        etags = [_put(store, b"%04d" % i) for i in range(200)]
        assert len(set(etags)) == 200
        assert store.head(CAT).etag == etags[-1]

    def test_reading_changes_no_etag(self, store: ObjectStore) -> None:
        """An object that nobody touched is recognised."""
        etag = _put(store, b"picture")
        assert [store.get(CAT, max_bytes=PLENTY).info.etag for _ in range(3)] == [etag] * 3

    @pytest.mark.parametrize("key", ["acme/2026/dog.jpg", "acme/dog.jpg", "nobody/cat.jpg"])
    def test_a_missing_object_may_come_yet(self, store: ObjectStore, key: str) -> None:
        """The event can be quicker than the object: to be tried again."""
        _put(store, b"picture")
        for location in (Location("images", key), Location("nowhere", CAT.key)):
            for read in (lambda at: store.get(at, max_bytes=PLENTY), store.head):
                with pytest.raises(ObjectMissingError) as caught:
                    read(location)
                assert caught.value.reason is Reason.IMAGE_MISSING

    def test_an_object_tells_its_own_time(self, store: ObjectStore) -> None:
        """The store's, in µs: between what the clock said before and after the put, to the second."""
        before_us = now_us()
        _put(store, b"picture")
        modified_us = store.head(CAT).modified_us
        assert modified_us is not None
        assert before_us - 1_000_000 <= modified_us <= now_us() + 1_000_000
        assert store.get(CAT, max_bytes=PLENTY).info.modified_us == modified_us

    def test_a_store_that_answers_passes_its_check(self, store: ObjectStore) -> None:
        """Whatever objects it holds."""
        store.check(CAT.bucket)

    def test_an_object_above_the_limit_is_refused(self, store: ObjectStore) -> None:
        """For good; one byte less is given."""
        _put(store, b"12345")
        with pytest.raises(EventError) as caught:
            store.get(CAT, max_bytes=4)
        assert caught.value.reason is Reason.IMAGE_TOO_LARGE
        assert store.get(CAT, max_bytes=5).data == b"12345"

    def test_a_deleted_object_is_missing(self, store: ObjectStore) -> None:
        """And to delete what is not there is no error, whatever is missing of its path."""
        _put(store, b"picture")
        store.delete(CAT.bucket, CAT.key)
        store.delete(CAT.bucket, CAT.key)
        store.delete("nowhere", "a/b")
        with pytest.raises(ObjectMissingError):
            store.head(CAT)

    def test_keys_below_a_folder_are_listed(self, store: ObjectStore) -> None:
        """All of them, however deep, and none of a folder whose name only begins the same."""
        keys = {"acme/a.jpg", "acme/b/c.jpg", "acme/b/d/e.jpg"}
        for key in (*keys, "acme2/a.jpg", "acm", "globex/a.jpg"):
            _put(store, b"x", at=Location("images", key))
        _put(store, b"x", at=Location("thumbs", "acme/z.jpg"))
        assert set(store.keys("images", "acme/")) == keys
        assert set(store.keys("images", "acme/b/")) == {"acme/b/c.jpg", "acme/b/d/e.jpg"}
        assert list(store.keys("images", "nobody/")) == list(store.keys("nowhere", "acme/")) == []
        for key in store.keys("images", "acme/"):
            store.delete("images", key)
        assert list(store.keys("images", "acme/")) == []

    def test_keys_and_buckets_do_not_mix(self, store: ObjectStore) -> None:
        """The same key in two buckets is two objects."""
        other = Location("thumbs", CAT.key)
        _put(store, b"one")
        _put(store, b"two", at=other)
        store.delete(other.bucket, other.key)
        assert store.get(CAT, max_bytes=PLENTY).data == b"one"

    @pytest.mark.parametrize(
        "key", ["a b.jpg", "a+b.jpg", "100%.jpg", "%2F%20x.jpg", "éà日本🐱.jpg", "a&b=c?d#e.jpg", "'~*().jpg", "..x"]
    )
    def test_a_key_is_taken_letter_by_letter(self, store: ObjectStore, key: str) -> None:
        """Whatever URLs, headers or file systems make of its letters."""
        place = Location("images", f"acme/{key}")
        etag = _put(store, key.encode(), at=place)
        assert store.get(place, max_bytes=PLENTY).data == key.encode()
        assert store.head(place).etag == etag
        store.delete(place.bucket, place.key)
        with pytest.raises(ObjectMissingError):
            store.head(place)

    def test_a_large_object_is_stored_whole(self, store: ObjectStore) -> None:
        """Twelve megabytes and one byte: more than a store takes in one part unless it is told to."""
        data = os.urandom(1 << 20) * 12 + b"!"
        etag = _put(store, data)
        found = store.get(CAT, max_bytes=len(data))
        assert found.data == data
        assert found.info.etag == etag

    def test_a_key_that_leaves_the_bucket_is_refused(self, store: ObjectStore) -> None:
        """Whatever a server or proxy on the way would make of it; memory holds no paths, and nothing is there."""
        for key in ("../secret", "a/../../secret", "a//b", "/etc/passwd", "a\0b"):
            with pytest.raises((EventError, ObjectMissingError)):
                store.head(Location("images", key))

    def test_a_reader_never_sees_a_mixture(self, store: ObjectStore) -> None:
        """While one thread puts, others get: always one of the whole objects, with its own etag."""
        versions = [bytes([i]) * 60_000 for i in range(4)]
        by_etag: dict[str, bytes] = {}
        done = threading.Event()
        by_etag[_put(store, versions[0])] = versions[0]

        def read() -> list[tuple[str, bytes]]:
            found = []
            while not done.is_set():
                try:
                    one = store.get(CAT, max_bytes=PLENTY)
                except RetryableError:
                    continue  # told that it changed under its hands: also no mixture
                found.append((one.info.etag, one.data))
            return found

        with ThreadPoolExecutor(3) as threads:
            readers = [threads.submit(read) for _ in range(3)]
            for i in range(60):
                by_etag[_put(store, versions[i % 4])] = versions[i % 4]
            done.set()
            seen = [one for reader in readers for one in reader.result(60)]
        assert seen
        assert all(by_etag[etag] == data for etag, data in seen)


# ---- a folder ------------------------------------------------------------------------------------


def _refused(store: ObjectStore, location: Location) -> Reason:
    for read in (lambda: store.get(location, max_bytes=PLENTY), lambda: store.head(location)):
        with pytest.raises(EventError) as caught:
            read()
    return caught.value.reason


@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("images", "../secret"),
        ("images", "a/../../secret"),
        ("images", ".."),
        ("images", "."),
        ("images", ""),
        ("images", "/etc/passwd"),
        ("images", "a//b"),
        ("images", "a\0b"),
        ("images", "..\\secret"),
        ("images", "a/\ud800"),
        ("images", "x" * 300),
        ("images", "folder"),
        ("..", "secret"),
        (".", "secret"),
        ("", "secret"),
        ("/etc", "passwd"),
        ("images/folder", "inside"),
        ("ima\0ges", "inside"),
    ],
)
def test_a_folder_gives_nothing_but_objects_below_it(tmp_path: Path, bucket: str, key: str) -> None:
    """Each of these names something else: the event is refused for good, and nothing outside is written either."""
    (tmp_path / "root/images/folder").mkdir(parents=True)
    (tmp_path / "root/images/folder/inside").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root/secret").write_bytes(b"secret")
    store = FolderStore(tmp_path / "root")
    assert _refused(store, Location(bucket, key)) is Reason.LOCATION_FORBIDDEN
    with pytest.raises(EventError):
        store.put(bucket, key, b"written")
    with pytest.raises(EventError):
        store.delete(bucket, key)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["inside", "secret", "secret"]
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_links_are_not_followed_wherever_they_lead(tmp_path: Path) -> None:
    """A link to a file, a folder or a bucket, out of the folder or within it: forbidden, and what it names is safe."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "cat.jpg").write_bytes(b"secret")
    bucket = tmp_path / "root/images"
    (bucket / "real").mkdir(parents=True)
    (bucket / "real/cat.jpg").write_bytes(b"mine")
    (bucket / "file.jpg").symlink_to(outside / "cat.jpg")
    (bucket / "near.jpg").symlink_to("real/cat.jpg")
    (bucket / "folder").symlink_to(outside)
    (bucket / "near").symlink_to("real")
    (bucket / "dangling.jpg").symlink_to(outside / "nothing")
    (bucket / "loop").symlink_to("loop")
    (tmp_path / "root/linked").symlink_to(outside)
    store = FolderStore(tmp_path / "root")
    for key in ("file.jpg", "near.jpg", "folder/cat.jpg", "near/cat.jpg", "dangling.jpg", "loop", "loop/cat.jpg"):
        assert _refused(store, Location("images", key)) is Reason.LOCATION_FORBIDDEN
    assert _refused(store, Location("linked", "cat.jpg")) is Reason.LOCATION_FORBIDDEN
    for key in ("folder/new.jpg", "folder/cat.jpg", "near/new.jpg"):
        with pytest.raises(EventError):
            store.put("images", key, b"x")
    assert [path.name for path in outside.iterdir()] == ["cat.jpg"]
    assert (outside / "cat.jpg").read_bytes() == b"secret"


def test_a_put_over_a_link_replaces_the_link(tmp_path: Path) -> None:
    """Not the file that it names."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root/images").mkdir(parents=True)
    (tmp_path / "root/images/cat.jpg").symlink_to(tmp_path / "secret")
    store = FolderStore(tmp_path / "root")
    store.put("images", "cat.jpg", b"picture")
    assert store.get(Location("images", "cat.jpg"), max_bytes=PLENTY).data == b"picture"
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    """The operator named it: that one link is followed."""
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    store = FolderStore(tmp_path / "root")
    _put(store, b"picture")
    assert store.get(CAT, max_bytes=PLENTY).data == b"picture"


@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """To open a pipe would wait for its writer for ever; a socket and a device are no pictures either."""
    bucket = tmp_path / "images"
    bucket.mkdir()
    os.mkfifo(bucket / "pipe")
    store = FolderStore(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(bucket / "socket"))
        for key in ("pipe", "socket"):
            assert _refused(store, Location("images", key)) is Reason.LOCATION_FORBIDDEN


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    """The key leads through an object."""
    store = FolderStore(tmp_path)
    store.put("images", "cat.jpg", b"picture")
    assert _refused(store, Location("images", "cat.jpg/more")) is Reason.LOCATION_FORBIDDEN


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_an_unreadable_file_is_that_files_trouble(number: int) -> None:
    """One wrong permission bit must not stop everybody as an outage would."""
    error = _translated(OSError(number, os.strerror(number)))
    assert isinstance(error, RetryableError)
    assert os.strerror(number) in error.message


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EMFILE, errno.EROFS])
def test_a_failing_disk_is_everybodys_trouble(number: int) -> None:
    """To be waited out: no event is at fault."""
    error = _translated(OSError(number, os.strerror(number)))
    assert isinstance(error, DependencyError)
    assert error.dependency == "bucket"


def test_what_cannot_be_deleted_is_not_called_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is missing was wanted so; a refusal of the system is told."""
    store = FolderStore(tmp_path)
    _put(store, b"picture")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(RetryableError, match="Permission denied"):
        store.delete(CAT.bucket, CAT.key)


def test_a_listing_follows_no_link_and_leaves_the_tenants_folder_by_none(tmp_path: Path) -> None:
    """Neither a link to another tenant's folder, nor one to a file, nor a put under way is listed."""
    store = FolderStore(tmp_path)
    _put(store, b"x")
    _put(store, b"x", at=Location("images", "globex/secret.jpg"))
    home = tmp_path / "images" / "acme"
    (home / "door").symlink_to("../globex")
    (home / "window").symlink_to("../globex/secret.jpg")
    (home / f".{'0' * 32}.part").touch()
    os.mkfifo(home / "pipe")
    assert list(store.keys("images", "acme/")) == [CAT.key]
    (tmp_path / "images" / "initech").symlink_to("globex")
    for folder in ("initech/", "acme/../globex/", "../images/globex/"):
        with pytest.raises(EventError):
            list(store.keys("images", folder))


def test_a_folder_that_is_gone_is_an_outage(tmp_path: Path) -> None:
    """An unmounted volume has no missing pictures: nothing may be dead-lettered for it."""
    store = FolderStore(tmp_path)
    _put(store, b"picture")
    tmp_path.rename(tmp_path.with_name("moved"))
    for call in (
        lambda: store.get(CAT, max_bytes=PLENTY),
        lambda: store.head(CAT),
        lambda: store.put("images", "a", b""),
        lambda: store.delete("images", "a"),
        lambda: store.check("images"),
        lambda: list(store.keys("images", "acme/")),
    ):
        with pytest.raises(DependencyError) as caught:
            call()
        assert caught.value.dependency == "bucket"
    tmp_path.with_name("moved").rename(tmp_path)
    assert store.get(CAT, max_bytes=PLENTY).data == b"picture"


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_folder_that_is_none_is_a_config_error(tmp_path: Path, name: str) -> None:
    """At the start, with the setting to change."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="LOOKALIKE_OBJECTS_DIR"):
        FolderStore(tmp_path / name)


def test_a_file_rewritten_in_place_while_it_is_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs write as they like: half of the old and half of the new is never given."""
    store = FolderStore(tmp_path)
    _put(store, b"a" * 1000)
    genuine, asked = os.fstat, []

    def grown(descriptor: int) -> os.stat_result:
        asked.append(descriptor)
        if len(asked) == 3:  # after the bytes were read
            with (tmp_path / CAT.bucket / CAT.key).open("r+b") as file:
                file.write(b"b" * 2000)
        return genuine(descriptor)

    monkeypatch.setattr(os, "fstat", grown)
    with pytest.raises(RetryableError) as caught:
        store.get(CAT, max_bytes=PLENTY)
    assert caught.value.reason is Reason.IMAGE_MISSING


def test_nothing_is_left_open_or_lying_about(tmp_path: Path) -> None:
    """After successes and refusals alike: no descriptor, no scratch file."""
    store = FolderStore(tmp_path)
    _put(store, b"picture")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        _put(store, b"picture")
        store.get(CAT, max_bytes=PLENTY)
        for location in (Location("images", "acme/2026"), Location("images", "a/b/c"), Location("images", "../x")):
            with pytest.raises((EventError, RetryableError)):
                store.get(location, max_bytes=PLENTY)
        with pytest.raises(EventError):
            store.put("images", "acme", b"over a folder")
    assert len(os.listdir("/proc/self/fd")) == before
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["cat.jpg"]
