"""Metrics, dashboards, alerts and runbooks say the same: no name that nothing tells, no alert without a page."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lookalike.metrics_docs import catalogues, known_series, render

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
_NAME = re.compile(r"\b(?:lookalike|process)[_:][a-z0-9_:]+")
PROCESS = frozenset({"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"})


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of dashboards and rules, and where it stands."""
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for path in BOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]


def test_the_page_of_metrics_is_what_the_catalogues_say() -> None:
    """docs/metrics.md is generated: `make docs` renews it."""
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == render()


def test_every_metric_has_a_meaning_and_a_unit_at_its_end() -> None:
    """Base units only, and no label that grows with tenants, images or keys but the pulse's top tenants."""
    for process, metrics in catalogues():
        assert metrics, process
        for one in metrics:
            assert len(one.meaning) > 10, one.name
            assert one.name.startswith("lookalike_"), one.name
            assert not re.search(r"_(ms|minutes|kb|mb|percent)(_|$)", one.name), one.name
            assert not {"image", "image_id", "key", "event_id", "path"} & set(one.labels), one.name
            assert "tenant" not in one.labels or (process == "Pulse" and one.name.startswith("lookalike_tenant_"))


def test_no_expression_asks_for_a_metric_that_does_not_exist() -> None:
    """A renamed metric would leave an alert that never fires."""
    known = known_series() | PROCESS | RECORDED
    asked = [(where, name) for where, expression in expressions() for name in _NAME.findall(expression)]
    assert len(asked) > 60
    assert [(where, name) for where, name in asked if name not in known] == []


# the SDK's own module of another dashboard version warns when it is loaded, whatever one uses
@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
def test_the_dashboards_are_what_their_code_makes() -> None:
    """`make docs` renews them."""
    made = runpy.run_path(str(ROOT / "deploy" / "grafana" / "dashboards.py"))
    assert {path.stem for path in BOARDS} == set(made["ALL"])
    for path in BOARDS:
        assert path.read_text() == made["render"](path.stem), path.name


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    """The page says what it means, where to look and what to do; it is linked from the alert and from the list."""
    listed = (RUNBOOKS / "README.md").read_text()
    for alert in ALERTS:
        name = alert["alert"]
        path = ROOT / alert["annotations"]["runbook_url"]
        assert path == RUNBOOKS / f"{name}.md"
        text = path.read_text()
        for title in (f"# {name}\n", "## What it means\n", "## Where to look\n", "## What to do\n"):
            assert title in text, f"{name}: {title}"
        assert f"({name}.md)" in listed
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"]
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {alert["alert"] for alert in ALERTS} | {"README"}


def test_every_alert_is_tested_both_ways() -> None:
    """promtool's file has a case in which it fires and one in which it does not."""
    tests = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts_test.yml").read_text())["tests"]
    fires = {one["alertname"]: bool(one["exp_alerts"]) for test in tests for one in test["alert_rule_test"]}
    both = {(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]}
    for alert in ALERTS:
        assert {(alert["alert"], True), (alert["alert"], False)} <= both, alert["alert"]
    assert set(fires) == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_links_of_the_docs_lead_somewhere(page: Path) -> None:
    """Relative ones only: what lies elsewhere is not asked for in a test."""
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
