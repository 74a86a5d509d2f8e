"""Which keys are pictures, and whose: what the operator said, applied to what a store tells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from embedder.normalize.observe import Place
from embedder.objects.grants import Grants
from streams.errors import EventError
from streams.notifications.hint import Hint, Kind, Notification
from streams.notifications.keys import KeyTemplate


@dataclass(frozen=True, slots=True)
class Scope:
    """`grants` is what the worker will be allowed to read of what is announced."""

    buckets: Collection[str]
    grants: Grants
    template: KeyTemplate
    skip_prefixes: Sequence[str] = ()

    def places(self, notification: Notification) -> tuple[list[tuple[Kind, Place]], int, EventError | None]:
        """What is to be looked at, how much is not, and the first event that cannot be."""
        found, n_ignored, problem = [], notification.n_ignored, notification.problem
        for hint in notification.hints:
            try:
                place = self._place(hint)
            except EventError as exc:
                problem = problem or exc
                continue
            if place is None:
                n_ignored += 1
            else:
                found.append((hint.kind, place))
        return found, n_ignored, problem

    def _place(self, hint: Hint) -> Place | None:
        """None where nobody said that pictures lie there: another bucket (thumbnails'), prefix or form of key."""
        if hint.bucket not in self.buckets or hint.key.startswith(tuple(self.skip_prefixes)):
            return None
        ids = self.template.read(hint.key)
        if ids is None:
            return None
        place = Place(*ids, hint.bucket, hint.key)
        self.grants.check(place.tenant_id, place.location)
        return place
