"""Every recorded notification reads as what was done to which key; what is none says why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import ConfigError, EventError, Reason
from streams.notifications.hint import Dialect, Hint, Kind
from streams.notifications.keys import KeyTemplate
from streams.notifications.read import read
from tests.notifications import Recorded, aws, minio, recorded

KINDS = {
    "s3:ObjectCreated:Put": Kind.CREATED,
    "s3:ObjectCreated:Post": Kind.CREATED,
    "s3:ObjectCreated:Copy": Kind.CREATED,
    "s3:ObjectCreated:CompleteMultipartUpload": Kind.CREATED,
    "s3:ObjectRemoved:Delete": Kind.REMOVED,
    "s3:ObjectRemoved:DeleteObjects": Kind.REMOVED,
    "s3:ObjectRemoved:DeleteMarkerCreated": Kind.REMOVED,
    "s3:ObjectRemoved:NoOP": Kind.REMOVED,
    "s3:ObjectCreated:PutTagging": None,
    "s3:ObjectTagging:Put": None,
    "s3:TestEvent": None,
}
"""What each recorded case must read as; None is no work."""
NO_KEY = ("versitygw", "s3:ObjectCreated:Post")

ALL = [*recorded("minio"), *recorded("versitygw")]


@pytest.mark.parametrize("one", [pytest.param(one, id=f"{one.store}-{n}-{one.case}") for n, one in enumerate(ALL)])
def test_a_recorded_notification_reads_as_what_was_done(one: Recorded) -> None:
    """The true bucket and key, whatever the store's escaping; one case names no key and says so."""
    kind = KINDS[one.case.split(" ")[0]]
    if (one.store, one.case) == NO_KEY:
        problem = read(one.value).problem
        assert problem is not None
        assert (problem.reason, problem.field) == (Reason.EVENT_INVALID, "object.key")
    elif kind is None:
        assert (read(one.value).hints, read(one.value).n_ignored) == ((), 1)
    else:
        assert one.bucket is not None
        assert one.key is not None
        assert read(one.value).hints == (Hint(Dialect(one.store), one.bucket, one.key, kind),)


def test_all_that_was_recorded_is_tried() -> None:
    """31 of MinIO and 27 of versitygw, with names that need escaping among them."""
    assert [sum(one.store == store for one in ALL) for store in ("minio", "versitygw")] == [31, 27]
    assert {"tenant-a/my cat.jpg", "tenant-a/a+b.jpg", "tenant-a/100%.jpg"} <= {one.key for one in ALL}


def test_versitygw_is_believed_in_its_arn_only() -> None:
    """Under load bucket and key are those of another request: with buckets of one length, a plausible wrong tenant."""
    one = next(one for one in recorded("versitygw") if one.case == "s3:ObjectCreated:Put").json
    one["Records"][0]["s3"]["bucket"]["name"] = "bad"
    one["Records"][0]["s3"]["object"]["key"] = "tenant-b/other.jpg"
    (hint,) = read(json.dumps(one).encode()).hints
    assert (hint.bucket, hint.key) == ("evt", "tenant-a/plain.jpg")


def test_rustfs_speaks_as_minio_does() -> None:
    """Only its name differs."""
    (hint,) = read(minio("ObjectCreated:Put", "evt", "a/b c+d.jpg", source="rustfs:s3")).hints
    assert hint == Hint(Dialect.MINIO, "evt", "a/b c+d.jpg", Kind.CREATED)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ObjectCreated:Put", Kind.CREATED),
        ("ObjectCreated:Post", Kind.CREATED),
        ("ObjectCreated:Copy", Kind.CREATED),
        ("ObjectCreated:CompleteMultipartUpload", Kind.CREATED),
        ("ObjectRemoved:Delete", Kind.REMOVED),
        ("ObjectRemoved:DeleteMarkerCreated", Kind.REMOVED),
        ("LifecycleExpiration:Delete", Kind.REMOVED),
        ("LifecycleExpiration:DeleteMarkerCreated", Kind.REMOVED),
        ("ObjectTagging:Put", None),
        ("ObjectTagging:Delete", None),
        ("ObjectAcl:Put", None),
        ("ObjectRestore:Completed", None),
        ("LifecycleTransition", None),
        ("Replication:OperationMissedThreshold", None),
    ],
)
def test_aws_names_have_no_prefix(name: str, kind: Kind | None) -> None:
    """Keys are form-escaped there as well."""
    read_as = read(aws((name, "evt", "acme/my cat+1 é.jpg")))
    expected = () if kind is None else (Hint(Dialect.AWS, "evt", "acme/my cat+1 é.jpg", kind),)
    assert read_as.hints == expected
    assert read_as.n_ignored == (kind is None)


def test_a_message_may_hold_several_events() -> None:
    """Each is read; one that is none of ours is counted, and one that cannot be read hides no other."""
    put, tag = ("ObjectCreated:Put", "evt", "acme/1.jpg"), ("ObjectTagging:Put", "evt", "acme/1.jpg")
    found = read(aws(put, tag, ("ObjectCreated:Put", "evt", ""), ("ObjectRemoved:Delete", "evt", "acme/2.jpg")))
    assert [hint.key for hint in found.hints] == ["acme/1.jpg", "acme/2.jpg"]
    assert found.problem is not None
    assert read(aws(put, tag)).n_ignored == 1


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, Reason.EVENT_INVALID, "value"),
        (b"", Reason.EVENT_INVALID, "value"),
        (b"not json", Reason.EVENT_INVALID, "value"),
        (b"\xff\xfe", Reason.EVENT_INVALID, "value"),
        (b"[]", Reason.EVENT_INVALID, "value"),
        (b"{}", Reason.EVENT_INVALID, "Records"),
        (b'{"Event": "s3:OtherEvent"}', Reason.EVENT_INVALID, "Records"),
        (b'{"Records": [{"eventSource": 1, "eventName": "x"}]}', Reason.EVENT_INVALID, "value"),
        (b'{"Records": [{"eventName": "x"}]}', Reason.EVENT_INVALID, "value"),
        (b"[" * 100_000, Reason.EVENT_INVALID, "value"),
    ],
)
def test_what_is_no_notification_says_why(value: bytes | None, reason: Reason, field: str) -> None:
    """With a reason of the dead letters' own."""
    with pytest.raises(EventError) as caught:
        read(value)
    assert (caught.value.reason, caught.value.field) == (reason, field)


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (minio("ObjectCreated:Put", "evt", "a/b", source="ceph:s3"), Reason.EVENT_UNSUPPORTED, "eventSource"),
        (aws(("ObjectCreated:Put", "", "a/b")), Reason.EVENT_INVALID, "object.key"),
        (aws(("ObjectCreated:Put", "evt", "")), Reason.EVENT_INVALID, "object.key"),
        (
            minio("ObjectCreated:Put", "evt", "x").replace(b'"key": "x"', b'"key": "%ff"'),
            Reason.EVENT_INVALID,
            "object.key",
        ),
        (aws(("s3:ObjectCreated:Put", "evt", "a/b")), Reason.EVENT_INVALID, "bucket.arn"),
    ],
)
def test_an_event_that_cannot_be_read_says_why(value: bytes, reason: Reason, field: str) -> None:
    """A key is never guessed."""
    problem = read(value).problem
    assert problem is not None
    assert (problem.reason, problem.field) == (reason, field)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Records", "Event", "eventSource", "eventName", "s3", "bucket", "object", "key", "name", "arn"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=64) | _json.map(lambda value: json.dumps(value).encode()))
def test_nothing_else_comes_out_of_any_bytes(value: bytes) -> None:
    """A record of anybody's is read, ignored or refused with a typed reason."""
    problem = _problem(value)
    assert problem is None or problem.reason in (Reason.EVENT_INVALID, Reason.EVENT_UNSUPPORTED)


def _problem(value: bytes) -> EventError | None:
    try:
        return read(value).problem
    except EventError as exc:
        return exc


# ---- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "key", "found"),
    [
        ("{tenant_id}/{image_id}.{ext}", "acme/cat.jpg", ("acme", "cat")),
        ("{tenant_id}/{image_id}.{ext}", "acme/a.b-c~1.jpeg", ("acme", "a.b-c~1")),
        ("{tenant_id}/{image_id}.{ext}", "acme/cat", None),
        ("{tenant_id}/{image_id}.{ext}", "acme/2026/cat.jpg", None),
        ("{tenant_id}/{image_id}.{ext}", "thumbs/acme/cat.jpg", None),
        ("{tenant_id}/{image_id}.{ext}", "acme/", None),
        ("{tenant_id}/{image_id}.{ext}", "cat.jpg", None),
        ("{tenant_id}/{image_id}.{ext}", "Acme/cat.jpg", None),
        ("{tenant_id}/{image_id}.{ext}", "../cat.jpg", None),
        ("{tenant_id}/{image_id}.{ext}", "acme/cat.jpg\n", None),
        ("{tenant_id}/{image_id}", "acme/cat.jpg", ("acme", "cat.jpg")),
        ("uploads/{tenant_id}/img-{image_id}.{ext}", "uploads/acme/img-7.png", ("acme", "7")),
        ("uploads/{tenant_id}/img-{image_id}.{ext}", "uploads/acme/7.png", None),
        ("a.b/{tenant_id}/{image_id}", "axb/acme/1", None),
    ],
)
def test_a_key_says_whose_picture_it_is(template: str, key: str, found: tuple[str, str] | None) -> None:
    """Where it has the template's form; every other key is none of our business."""
    assert KeyTemplate(template).read(key) == found


@pytest.mark.parametrize(
    "key", ["acme/my cat.jpg", "acme/é.jpg", "acme/.hidden.jpg", "acme/%2F.jpg", f"acme/{'x' * 129}.jpg"]
)
def test_a_picture_whose_name_can_be_no_image_id_is_refused(key: str) -> None:
    """Not passed over: its owner would wait for it for ever."""
    with pytest.raises(EventError) as caught:
        KeyTemplate().read(key)
    assert (caught.value.reason, caught.value.field) == (Reason.EVENT_INVALID, "image_id")


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{tenant_id}",
        "{tenant_id}/",
        "{image_id}.{ext}",
        "{tenant_id}-{image_id}",
        "{tenant_id}/{image_id}/{ext}",
        "{tenant_id}/{image_id}{ext}",
        "{tenant_id}/{image_id}/{image_id}",
        "{tenant_id}/{year}/{image_id}",
        "t-{tenant_id}/{image_id}",
        "{image_id}/{tenant_id}",
        "/{tenant_id}/{image_id}",
        "{tenant_id}//{image_id}",
        "{tenant_id}/{image_id}.{",
    ],
)
def test_a_template_that_holds_no_tenants_apart_is_refused(template: str) -> None:
    """Found at the start, not by the first key."""
    with pytest.raises(ConfigError, match="key template"):
        KeyTemplate(template)
