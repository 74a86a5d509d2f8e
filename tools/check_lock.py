"""Whether requirements.lock holds what pyproject.toml asks for, and no address. Offline; `make lock` renews it."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ADDRESS = re.compile(r"https?://|file:|--(extra-)?index-url|--find-links|@ /")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)")


def problems(project_text: str, lock_text: str) -> Iterator[str]:
    """One line per thing that is wrong."""
    for name, text in (("pyproject.toml", project_text), ("requirements.lock", lock_text)):
        for number, line in enumerate(text.splitlines(), start=1):
            if _ADDRESS.search(line):
                yield f"{name}:{number}: an address does not belong here: {line.strip()}"
    pins: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock_text):
        pin = _PIN.match(block)
        if pin is None:
            continue
        pins.setdefault(canonicalize_name(pin[1]), set()).add(pin[2])
        if "--hash=sha256:" not in block:
            yield f"requirements.lock: {pin[1]} has no hash"
    for wanted in _requirements(project_text):
        found = pins.get(canonicalize_name(wanted.name), set())
        if not any(wanted.specifier.contains(version, prereleases=True) for version in found):
            have = ", ".join(sorted(found)) or "nothing"
            yield f"requirements.lock: pyproject.toml asks for {wanted}, the lock has {have}: run `make lock`"


def _requirements(project_text: str) -> Iterator[Requirement]:
    project = tomllib.loads(project_text)["project"]
    for group in (project["dependencies"], *project.get("optional-dependencies", {}).values()):
        yield from map(Requirement, group)


def main() -> int:
    """0: all is well; 1: the problems are on stderr."""
    found = list(problems(Path("pyproject.toml").read_text("utf-8"), Path("requirements.lock").read_text("utf-8")))
    sys.stderr.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
