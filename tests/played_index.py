"""Any real index to play interleavings on: written through its Writer, seen through its search."""

from __future__ import annotations

from embedder.index.points import Point, Write, Written
from embedder.index.protocol import Searcher, Writer
from embedder.index.query import like
from tests.script import ETAGS, IMAGES, vector_of

DURABLE_S = 30.0


class PlayedIndex:
    """One tenant of an index with vectors of `tests.script.VECTOR_DIM` floats; each write waits until it is durable."""

    def __init__(self, tenant_id: str, *, writer: Writer, searcher: Searcher) -> None:
        self._tenant_id = tenant_id
        self._writer = writer
        self._searcher = searcher

    def read(self, image_id: str) -> Point | None:
        return self._writer.read(self._tenant_id, [image_id])[0]

    def write(self, write: Write) -> Written:
        return self._writer.write(self._tenant_id, [write]).result(DURABLE_S).written[0]

    def picture(self, image_id: str) -> str | None:
        """A stored picture scores 1 against its own vector and 0 against the others'."""
        for etag in ETAGS:
            hits = self._searcher.search(self._tenant_id, like(vector_of(etag), limit=len(IMAGES))).hits
            if any(hit.image_id == image_id and hit.score > 0.9 for hit in hits):
                return etag
        return None
