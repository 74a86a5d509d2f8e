"""Commits that the broker refuses: requests are spoiled on their way, so the refusal is the broker's own."""

from __future__ import annotations

import struct

_OFFSET_COMMIT = 8
_HEADER = struct.Struct(">hhih")
"""Request: API key, API version, correlation id, length of the client id."""


class RefusedCommits:
    """A `Rewrite` for the proxy. While `on`, each OffsetCommit carries a member epoch that nobody has."""

    def __init__(self) -> None:
        self.on = False
        self.spoiled = 0

    def __call__(self, request: bytes) -> bytes:
        """Kafka's protocol guide, OffsetCommit request 8 and newer: compact strings, then the epoch as int32."""
        key, version, _correlation, client_length = _HEADER.unpack_from(request)
        if not self.on or key != _OFFSET_COMMIT:
            return request
        assert version >= 8, f"OffsetCommit {version} is not known here"
        at = _HEADER.size + max(0, client_length) + 1  # the client id, and no tagged fields
        group_length = request[at] - 1
        assert 0 < group_length < 0x7F, "a group id of one length byte"
        at += 1 + group_length
        self.spoiled += 1
        return request[:at] + struct.pack(">i", 1_000_000) + request[at + 4 :]
