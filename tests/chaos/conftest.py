"""The chaos suite's brokers, its rows, and what is shown of the logs when a scenario fails (docs/chaos.md)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.broker import ChaosKafka
from tests.chaos.row import GRACE_S, SHORT_GRACE_S, Row, save
from tests.chaos.site import Setup, Site, tail_of

BUILD = Path(__file__).parents[2] / "build"
ROWS = pytest.StashKey[list[Row]]()
LOGS = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos",
        choices=("short", "full"),
        default="short",
        help="full: every scenario with its real duration; short: a handful, as part of all tests",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: a scenario of `make chaos` only")


def _full(config: pytest.Config) -> bool:
    return bool(config.getoption("--chaos", default="short") == "full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The short run leaves the long scenarios out."""
    if _full(config):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether this run takes the real durations."""
    return _full(pytestconfig)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosKafka]:
    """The broker of most scenarios: a dead worker's partitions are given away after 6 s."""
    with ChaosKafka(tmp_path_factory.mktemp("chaos-kafka"), session_s=6) as local:
        yield local


@pytest.fixture(scope="module")
def patient_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosKafka]:
    """The broker of the scenarios in which it restarts: with 6 s it would forget its members meanwhile."""
    with ChaosKafka(tmp_path_factory.mktemp("patient-kafka"), session_s=45) as local:
        yield local


@pytest.fixture
def site(tmp_path: Path, unique: str, full: bool, request: pytest.FixtureRequest) -> Callable[..., Site]:
    """Makes the scenario's installation; its logs stay in build/chaos-logs."""
    logs = BUILD / "chaos-logs" / request.node.name
    shutil.rmtree(logs, ignore_errors=True)
    request.node.stash[LOGS] = logs

    def make(kafka: ChaosKafka, **setup: Any) -> Site:
        grace_s = GRACE_S if full else SHORT_GRACE_S
        return Site(kafka, tmp_path, logs, prefix=f"{unique}.", grace_s=grace_s, setup=Setup(**setup))

    return make


@pytest.fixture
def report(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[Row], None]:
    """Prints a scenario's row and keeps it for build/chaos.json; whatever it says, nothing fails."""
    rows = request.config.stash.setdefault(ROWS, [])

    def reported(row: Row) -> None:
        rows.append(row)
        with capsys.disabled():
            print(f"\n{row.line()}")  # noqa: T201 - each scenario prints its row

    return reported


@pytest.fixture
def judge(report: Callable[[Row], None]) -> Callable[[Row], None]:
    """As `report`, and fails where the row is not good enough."""

    def judged(row: Row) -> None:
        report(row)
        assert row.ok, "; ".join(row.problems)

    return judged


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Whoever reads a failure reads the processes' last words with it."""
    report: Any = yield
    folder = item.stash.get(LOGS, None)
    if report.failed and folder is not None:
        report.sections += [(f"{log.name} (all of it: {log})", tail_of(log)) for log in sorted(folder.glob("*.log"))]
    return report  # type: ignore[no-any-return]


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash.get(ROWS, [])
    if rows:
        save(rows, BUILD / ("chaos.json" if _full(session.config) else "chaos-short.json"))
