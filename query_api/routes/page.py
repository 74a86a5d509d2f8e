"""The page for people: one template, one script, one style sheet, all sent from memory."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from query_api import params
from query_api.openapi import refusals
from query_api.operation import Operation

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # blob: the dropped picture, shown beside its hits
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

MEDIA_TYPES = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
"""What the page loads."""


class Page:
    """`/` and what it loads."""

    def __init__(self, *, default_tenant: str, max_body_bytes: int) -> None:
        self._default_tenant = default_tenant
        self._max_body_bytes = max_body_bytes
        environment = Environment(autoescape=True, undefined=StrictUndefined)
        room = files("query_api")
        self._template = environment.from_string((room / "templates" / "page.html").read_text())
        self._assets = {
            name: ((room / "static" / name).read_bytes(), media_type) for name, media_type in MEDIA_TYPES.items()
        }

    def operations(self) -> list[Operation]:
        return [Operation("GET", "/", "page", self.page, None, PAGE)]

    def assets(self) -> list[Operation]:
        """What the page loads; no part of the documented API."""
        return [Operation("GET", f"/static/{name}", "asset", self.asset, None) for name in MEDIA_TYPES]

    async def page(self, request: Request) -> Response:
        params.only(request, {"tenant"})
        tenant_id = request.query_params.get("tenant") or self._default_tenant
        html = self._template.render(tenant_id=tenant_id, max_body_bytes=self._max_body_bytes)
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": CSP})

    async def asset(self, request: Request) -> Response:
        data, media_type = self._assets[request.url.path.rpartition("/")[2]]
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media_type, headers=headers)


PAGE = {
    "summary": "A page to look at a tenant's pictures and their look-alikes",
    "parameters": [{"name": "tenant", "in": "query", "schema": {"type": "string"}}],
    "responses": {"200": {"description": "the page", "content": {"text/html": {}}}, **refusals(400)},
}
