"""What a tenant may read: only what lies under its own prefixes of the configured buckets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from streams.errors import ConfigError, EventError, Reason
from streams.event import Location

PLACEHOLDER = "{tenant_id}"
_NOT_PLAIN = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]|(?:^|/)\.{0,2}(?:/|\Z)")
_MAX_KNOWN = 10_000


class Grants:
    """The rule, checked by whoever announces a location and again by the worker."""

    def __init__(self, buckets: Sequence[str], templates: Sequence[str] = (PLACEHOLDER + "/",)) -> None:
        """`templates` are key prefixes in which ``{tenant_id}`` stands for the tenant.

        Raises:
            ConfigError: a template that does not hold tenants apart: the id must be a whole path segment.
        """
        for template in templates:
            *folders, last = template.split("/")
            if last != "" or PLACEHOLDER not in folders:
                raise ConfigError(f"tenant prefix {template!r} must hold {PLACEHOLDER} as a folder and end with /")
            if not is_plain_key("/".join(folders)) or "{" in template.replace(PLACEHOLDER, ""):
                raise ConfigError(f"tenant prefix {template!r} can never be met: write it like uploads/{PLACEHOLDER}/")
        self._buckets = frozenset(buckets)
        self._templates = tuple(templates)
        self._known: dict[str, tuple[str, ...]] = {}

    def check(self, tenant_id: str, location: Location) -> None:
        """Refuse a location that is not the tenant's.

        Raises:
            EventError: `location_forbidden`; the message never says whether something is there.
        """
        if location.bucket not in self._buckets:
            raise EventError(Reason.LOCATION_FORBIDDEN, "this bucket is not configured", field="location.bucket")
        if not is_plain_key(location.key):
            raise EventError(Reason.LOCATION_FORBIDDEN, "this is no plain object key", field="location.key")
        if not location.key.startswith(self._prefixes(tenant_id)):
            raise EventError(
                Reason.LOCATION_FORBIDDEN, "this key lies outside of the tenant's prefix", field="location.key"
            )

    def _prefixes(self, tenant_id: str) -> tuple[str, ...]:
        found = self._known.get(tenant_id)
        if found is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[tenant_id] = tuple(t.replace(PLACEHOLDER, tenant_id) for t in self._templates)
        return found


def is_plain_key(key: str) -> bool:
    """Whether every store reads `key` as the same path: no empty, `.` or `..` segment, no backslash, no control
    character, nothing that UTF-8 cannot say (half a surrogate pair)."""
    return _NOT_PLAIN.search(key) is None
