"""Which version a change gets, and which are refused: pure, from what the index holds of the image."""

from __future__ import annotations

from embedder.index.points import AttemptState, Point, State
from streams.errors import QueryError
from streams.event import MAX_AHEAD_US, MAX_VERSION, MIN_VERSION


def newest(stored: Point | None) -> int:
    """The highest version that is known of the image, applied or only tried; 0 for none."""
    if stored is None:
        return 0
    return max(stored.version, 0 if stored.attempt is None else stored.attempt.version)


def for_create(given: int | None, stored: Point | None, *, now_us: int) -> int:
    """The version of a picture that is posted: without a given one the newest there is.

    Raises:
        QueryError: 400 for no version at all; 409 `version_superseded` where something newer, or a delete
            of this very version, was applied.
    """
    if given is None:
        return max(now_us, newest(stored) + 1)
    _check(given, now_us)
    if stored is not None and (stored.version > given or (stored.version == given and stored.state is State.DELETED)):
        raise superseded(stored, given)
    return given


def for_delete(given: int | None, stored: Point | None, *, now_us: int) -> int:
    """The version of a delete: without a given one it ends all that is known of the image.

    Raises:
        QueryError: 400 for no version at all; 409 `version_superseded` where something newer was applied.
    """
    if given is None:
        return max(now_us, newest(stored))
    _check(given, now_us)
    if stored is not None and stored.version > given:
        raise superseded(stored, given)
    return given


def is_stored(stored: Point | None, version: int) -> bool:
    """Whether a picture of this very version is searchable: then it must be the same one that is posted."""
    return stored is not None and stored.version == version and stored.state is State.INDEXED


def may_replace(stored: Point | None, version: int) -> bool:
    """Whether a picture stored under this very version, and never indexed, may become another: it failed for good."""
    attempt = None if stored is None else stored.attempt
    return attempt is not None and attempt.version == version and attempt.state is AttemptState.FAILED


def superseded(stored: Point, given: int) -> QueryError:
    """What is stored wins."""
    message = f"version {given} is superseded: the image is {stored.state} with version {stored.version}"
    return QueryError(409, "version_superseded", message, field="version")


def conflict(version: int) -> QueryError:
    """One version is one picture."""
    message = f"another picture has version {version} of this image: send it with a higher version"
    return QueryError(409, "version_conflict", message, field="version")


def _check(version: int, now_us: int) -> None:
    if not MIN_VERSION <= version <= MAX_VERSION:
        message = f"version must be microseconds since 1970, {MIN_VERSION} to {MAX_VERSION}"
        raise QueryError(400, "invalid_parameter", message, field="version")
    if version > now_us + MAX_AHEAD_US:
        ahead_s = (version - now_us) / 1e6
        raise QueryError(400, "invalid_parameter", f"version lies {ahead_s:.0f} s ahead", field="version")
