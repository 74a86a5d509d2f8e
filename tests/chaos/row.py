"""One scenario's figures, and whether they are good enough."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

GRACE_S = 5.0
"""On top of the session time-out, until every partition has a living owner after the last fault."""
SHORT_GRACE_S = 45.0
"""The same in the short run, which shares its machine with whatever else is tested or built there."""


@dataclass(slots=True)
class Row:
    """As in build/chaos.json. Times in seconds, None where a scenario does not have the figure.

    `repeated` counts outcomes beyond the first of the same (topic, partition, offset); `allowed_repeats`
    is what the faults may cost (docs/chaos.md says how it is counted).
    """

    scenario: str
    events: int
    lost: int
    repeated: int
    allowed_repeats: int
    owned_after_s: float | None
    resume_s: float | None
    exit_s_max: float | None
    ok: bool = True
    reported: dict[str, float | int | str] = field(default_factory=dict)
    """Figures that are of interest and gate nothing."""
    problems: list[str] = field(default_factory=list)
    """Why `ok` is false, for whoever reads the log."""

    def refuse(self, *problems: str) -> None:
        """What is wrong with it; without any problem nothing changes."""
        self.problems += problems
        self.ok = not self.problems

    def line(self) -> str:
        """One line for the terminal."""

        def seconds(value: float | None) -> str:
            return "    -" if value is None else f"{value:5.1f}"

        more = " ".join(f"{name}={value}" for name, value in self.reported.items())
        return (
            f"{'ok  ' if self.ok else 'FAIL'} {self.scenario:<34} events {self.events:>5}  lost {self.lost}  "
            f"repeated {self.repeated}/{self.allowed_repeats}  owned {seconds(self.owned_after_s)}  "
            f"resume {seconds(self.resume_s)}  exit {seconds(self.exit_s_max)}  {more}"
        ).rstrip()


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the file; rows of scenarios that did not run this time stay as they were."""
    kept: dict[str, dict[str, object]] = {}
    if path.exists():
        kept = {row["scenario"]: row for row in json.loads(path.read_text())}
    kept |= {row.scenario: asdict(row) for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([kept[name] for name in sorted(kept)], indent=1) + "\n")
