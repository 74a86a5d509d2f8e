"""The alerts' own tests, run by promtool."""

from __future__ import annotations

from pathlib import Path

from tests.operators.prometheus import promtool, quicker

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


def test_the_rules_are_rules() -> None:
    """Prometheus itself reads them."""
    code, said = promtool("check", "rules", str(FOLDER / "alerts.yml"))
    assert code == 0, said


def test_each_alert_fires_and_does_not_fire_as_its_cases_say() -> None:
    """deploy/prometheus/alerts_test.yml; tests/unit/test_operators.py sees that no alert is missing there."""
    code, said = promtool("test", "rules", str(FOLDER / "alerts_test.yml"))
    assert code == 0, said


def test_the_configurations_are_what_prometheus_reads(tmp_path: Path) -> None:
    """The one beside `up`; the other names secrets' files that only containers have."""
    code, said = promtool("check", "config", "--syntax-only", str(FOLDER / "local.yml"))
    assert code == 0, said
    code, said = promtool("check", "config", "--syntax-only", str(FOLDER / "compose.yml"))
    assert code == 0, said


def test_quicker_rules_differ_in_their_durations_only(tmp_path: Path) -> None:
    """What is shown to fire on a run of minutes is the alert that pages after an hour."""
    path = tmp_path / "alerts.yml"
    path.write_text(quicker((FOLDER / "alerts.yml").read_text()))
    code, said = promtool("check", "rules", str(path))
    assert code == 0, said
    assert "[30s]" in path.read_text()
