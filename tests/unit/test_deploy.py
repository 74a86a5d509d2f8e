"""What is deployed, read as data: only settings that exist, only fixed images, no secret, nothing as root."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lookalike.settings import known_variables
from streams.topics import Lane, TopicNames

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPOSE = ROOT / "docker-compose.yml"
MANIFESTS = sorted(path for path in (KUBERNETES / "base").glob("*.yaml") if path.name != "kustomization.yaml")
_SECRET = re.compile(r"\b(LOOKALIKE_\w*(?:SECRET_KEY|API_KEY|PASSWORD|TOKEN|ACCESS_KEY)\w*)\b[:=, value\"]*(\S*)")
PROCESSES = {"worker", "api", "pulse", "normalizer"}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def manifests() -> list[dict[str, Any]]:
    return [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests() if one["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    """The pod of each deployment and job."""
    return {name: one["spec"]["template"]["spec"] for name, one in {**of_kind("Deployment"), **of_kind("Job")}.items()}


def texts() -> Iterator[tuple[Path, str]]:
    """Everything under deploy/ and the compose file."""
    for path in [COMPOSE, ROOT / "deploy" / "docker" / "Dockerfile", *sorted((ROOT / "deploy").rglob("*.y*ml"))]:
        yield path, path.read_text()


def test_every_variable_is_a_setting() -> None:
    """A misspelt one would stop the process at its start; here it stops the build."""
    named = {name for _, text in texts() for name in re.findall(r"\bLOOKALIKE_[A-Z0-9_]+", text)}
    assert len(named) > 20
    assert named <= known_variables(), named - known_variables()


def test_every_image_has_a_fixed_tag() -> None:
    """What runs tomorrow is what was looked at today."""
    images = {service["image"] for service in compose()["services"].values()}
    images |= {pod["containers"][0]["image"] for pod in pods().values()}
    images |= set(re.findall(r"^FROM (\S+)", (ROOT / "deploy" / "docker" / "Dockerfile").read_text(), re.MULTILINE))
    assert len(images) == 7
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name, image
        assert re.search(r"\d+\.\d+", tag), image


def test_no_secret_is_in_a_file() -> None:
    """Secrets are files that somebody else makes; only their paths are written here."""
    for path, text in texts():
        for name, value in _SECRET.findall(text):
            assert name.endswith("_FILE"), f"{path}: {name}"
            assert "/run/secrets" in value, f"{path}: {name}={value}"
    ignored = subprocess.run(
        ["git", "check-ignore", "deploy/docker/secrets/s3_secret_key"], cwd=ROOT, capture_output=True, check=False
    )
    assert ignored.returncode == 0, "the folder of the secrets must be ignored by git"


def test_secrets_of_the_compose_file_are_declared_and_made() -> None:
    """Each that a service names exists, and the script makes it."""
    found = compose()
    declared = {name: Path(one["file"]).name for name, one in found["secrets"].items()}
    used = {name for service in found["services"].values() for name in service.get("secrets", ())}
    assert used == set(declared)
    script = (ROOT / "deploy" / "docker" / "make-secrets").read_text()
    assert all(file.removesuffix(".json") in script for file in declared.values())


def test_compose_starts_everything_in_order() -> None:
    """Each process of ours waits for what it stands on; long-running ones are checked, bounded and restarted."""
    services = compose()["services"]
    assert {"kafka", "qdrant", "s3", "prometheus", "grafana", "worker-1", "worker-2"} <= set(services)
    ours = {name: one for name, one in services.items() if one["image"].startswith("lookalike:") and name != "topics"}
    assert {name.rstrip("-12") for name in ours} == PROCESSES
    for name, service in ours.items():
        assert set(service["depends_on"]) == {"topics", "qdrant", "s3"}, name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "healthcheck" in service, name
    for name, service in services.items():
        if name != "topics":
            assert service["restart"] == "unless-stopped", name
            assert service["deploy"]["resources"]["limits"]["memory"], name
    for waiting in services.values():
        for needed, how in waiting["depends_on"].items() if isinstance(waiting.get("depends_on"), dict) else ():
            assert how["condition"] != "service_healthy" or "healthcheck" in services[needed]


def test_published_ports_are_for_this_machine_only() -> None:
    """Kafka, the store and Prometheus ask nobody who he is."""
    for service in compose()["services"].values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port


def test_a_stop_takes_no_longer_than_it_is_given() -> None:
    """The drain ends before the container is killed."""
    for name, pod in pods().items():
        env = {one["name"]: one["value"] for one in pod["containers"][0].get("env", ())}
        for variable, value in env.items():
            if variable.endswith("_DRAIN_S"):
                assert pod["terminationGracePeriodSeconds"] >= float(value) + 15, name


@pytest.mark.parametrize("name", sorted([*PROCESSES, "topics"]))
def test_a_pod_gets_no_service_links_no_root_and_no_token(name: str) -> None:
    """Service links would set LOOKALIKE_ variables that are none; the rest is what `restricted` asks."""
    pod = pods()[name]
    container = pod["containers"][0]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    mounted = {one["name"] for one in container.get("volumeMounts", ())}
    assert mounted == {one["name"] for one in pod.get("volumes", ())}


def test_probes_ask_the_port_that_the_process_is_told() -> None:
    """A probe on another port would restart a healthy process for ever."""
    for name in PROCESSES:
        (container,) = pods()[name]["containers"]
        env = {one["name"]: one["value"] for one in container["env"]}
        (port,) = [int(value) for variable, value in env.items() if variable.endswith("_PORT")]
        assert container["ports"] == [{"name": "http", "containerPort": port}]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == "http"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "readiness must not restart anybody"


def test_budgets_policies_and_scaling_select_what_there_is() -> None:
    """A selector that matches nothing protects nothing."""
    names = set(of_kind("Deployment"))
    assert names == PROCESSES
    for budget in of_kind("PodDisruptionBudget").values():
        assert budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] in names
    policies = of_kind("NetworkPolicy")
    assert policies["default-deny"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (scaled,) = of_kind("ScaledObject").values()
    assert scaled["spec"]["scaleTargetRef"]["name"] == "worker"
    assert "replicas" not in of_kind("Deployment")["worker"]["spec"]
    topics = [trigger["metadata"]["topic"] for trigger in scaled["spec"]["triggers"]]
    assert topics == [TopicNames().lane(Lane.LIVE), TopicNames().lane(Lane.BULK)]
    groups = {trigger["metadata"]["consumerGroup"] for trigger in scaled["spec"]["triggers"]}
    assert groups == {"lookalike-embedder"}


def test_every_manifest_is_in_the_kustomization() -> None:
    """A file that nobody names is deployed by nobody."""
    listed = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in MANIFESTS)
