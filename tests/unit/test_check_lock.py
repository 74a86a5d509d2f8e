"""The offline check of requirements.lock."""

from __future__ import annotations

import pytest

from tools.check_lock import problems

PROJECT = """
[project]
dependencies = ["Some_Package>=2"]
[project.optional-dependencies]
more = ["other[fast]==1.5"]
"""
LOCK = """# made by: make lock
other==1.5 ; sys_platform == 'linux' \\
    --hash=sha256:00
some-package==2.1 \\
    --hash=sha256:11
"""


def test_a_lock_that_holds_everything_passes() -> None:
    """Names are compared as packaging does, extras and markers do not matter."""
    assert list(problems(PROJECT, LOCK)) == []


@pytest.mark.parametrize(
    ("project", "lock", "told"),
    [
        (PROJECT.replace(">=2", ">=3"), LOCK, "asks for Some_Package>=3, the lock has 2.1"),
        (PROJECT, LOCK.replace("other==1.5", "another==1.5"), "the lock has nothing"),
        (PROJECT, LOCK.replace("    --hash=sha256:00", "    # none"), "other has no hash"),
        (PROJECT, "--index-url somewhere\n" + LOCK, "an address does not belong here"),
        (PROJECT + "\n# see https://somewhere", LOCK, "an address does not belong here"),
    ],
)
def test_each_thing_that_is_wrong_is_one_line(project: str, lock: str, told: str) -> None:
    """The line says what the project asks for and what the lock has."""
    (line,) = problems(project, lock)
    assert told in line
