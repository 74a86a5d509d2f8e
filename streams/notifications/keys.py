"""Whose picture a key is: the template that says where tenant and image stand in it."""

from __future__ import annotations

import re

from streams.errors import ConfigError, EventError, Reason
from streams.event import IMAGE_ID_PATTERN, TENANT_ID_PATTERN

DEFAULT_TEMPLATE = "{tenant_id}/{image_id}.{ext}"

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_GROUPS = {"tenant_id": "(?P<tenant_id>[^/]+)", "image_id": "(?P<image_id>[^/]+)", "ext": "[A-Za-z0-9]{1,10}"}
_tenant_id = re.compile(TENANT_ID_PATTERN)
_image_id = re.compile(IMAGE_ID_PATTERN)


class KeyTemplate:
    """``{tenant_id}`` is a whole folder, ``{image_id}`` is in the last segment, ``{ext}`` has 1–10 letters and digits.

    Two keys that differ in nothing but ``{ext}`` are the same image: where that happens, leave ``.{ext}``
    out, and the extension is part of the image's id.
    """

    def __init__(self, template: str = DEFAULT_TEMPLATE) -> None:
        """Raises ConfigError for a template that does not hold tenants apart or names no image."""
        names = sorted(_PLACEHOLDER.findall(template))
        *folders, last = template.split("/")
        why = None
        if names not in (["image_id", "tenant_id"], ["ext", "image_id", "tenant_id"]):
            why = "must hold {tenant_id} and {image_id} once, and {ext} once at most"
        elif "{tenant_id}" not in folders or "{image_id}" not in last or ("ext" in names and "{ext}" not in last):
            why = "must hold {tenant_id} as a folder, and {image_id} and {ext} in its last part"
        elif not all(folders) or "}{" in last or re.search("[{}]", _PLACEHOLDER.sub("", template)):
            why = f"can never be met: write it like {DEFAULT_TEMPLATE}"
        if why is not None:
            raise ConfigError(f"key template {template!r} {why}")
        parts = _PLACEHOLDER.split(template)
        pattern = "".join(_GROUPS[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))
        self._match = re.compile(pattern).fullmatch
        self._template = template

    def example(self, tenant_id: str) -> str:
        """A key of this tenant."""
        return self._template.format(tenant_id=tenant_id, image_id="image", ext="jpg")

    def read(self, key: str) -> tuple[str, str] | None:
        """Tenant and image id; None for a key of another form: nobody said that pictures lie there.

        Raises:
            EventError: a picture of a tenant by its form, whose name can be no image id.
        """
        found = self._match(key)
        if found is None or _tenant_id.match(found["tenant_id"]) is None:
            return None
        if _image_id.match(found["image_id"]) is None:
            what = f"{found['image_id'][:80]!r} can be no image id: it must match {IMAGE_ID_PATTERN}"
            raise EventError(Reason.EVENT_INVALID, what, field="image_id")
        return found["tenant_id"], found["image_id"]
