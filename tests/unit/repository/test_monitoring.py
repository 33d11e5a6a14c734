"""What Prometheus reads of a cluster, and what it says when something is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard
from prometheus_client.parser import text_string_to_metric_families

from components.serving.server_metrics import ServerMetrics
from components.training.monitoring.training_metrics import TrainingMetrics
from tests.helpers.kubectl import until
from tests.helpers.kustomize import built
from tests.helpers.loopback import free_port
from tests.helpers.monitoring import (
    ALERT_TESTS,
    DASHBOARD,
    MONITORING,
    alert_groups,
    configuration,
    documented_metrics,
    expressions,
    mlflow_figures,
)
from tests.helpers.restricted_pods import assert_restricted
from tests.helpers.waiting import HANG_SECONDS
from tests.helpers.yaml_files import documents

# Metrics of Prometheus itself and of the kubelet, which the cluster's own monitoring reads.
FOREIGN = {"up", "ALERTS", "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}
NAME = re.compile(r"\b(?:mantis|minio|mlflow|kubelet)_[a-z0-9_]+\b")


def promtool(*arguments: str, folder: Path) -> str:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no `promtool` on PATH: the alerts do not fire here (Debian's package prometheus has it)")
    done = subprocess.run([tool, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as prometheus.yml expects it."""
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(alert_groups()))
    (tmp_path / "mlflow-password").write_text("a password")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration({})))
    shutil.copy(ALERT_TESTS, tmp_path)
    return tmp_path


def alerts() -> list[str]:
    return [rule["alert"] for group in alert_groups()["groups"] for rule in group["rules"]]


def test_each_alert_fires_on_its_fault_and_is_silent_without_it(folder: Path) -> None:
    tests = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    for fires in (True, False):
        assert {check["alertname"] for check in checks if bool(check.get("exp_alerts")) is fires} == set(alerts())
    assert "SUCCESS" in promtool("test", "rules", ALERT_TESTS.name, folder=folder)


def test_prometheus_accepts_its_configuration(folder: Path) -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=folder)


def test_both_kinds_of_prometheus_read_the_same_jobs() -> None:
    monitors = documents((MONITORING / "targets.yaml").read_text())
    of_operator = {job_of(monitor): monitor["spec"]["podMetricsEndpoints"][0]["path"] for monitor in monitors}
    plain = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert of_operator == {each["job_name"]: each["metrics_path"] for each in plain}
    assert set(of_operator) == {metric.job for metric in documented_metrics()}


def job_of(monitor: dict[str, Any]) -> str:
    (job,) = [each for each in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"] if each["targetLabel"] == "job"]
    return str(job["replacement"])


def test_alerts_and_dashboard_ask_for_documented_metrics_only() -> None:
    documented = {metric.name for metric in documented_metrics()}
    named = [NAME.findall(expression) for expression in expressions()]
    assert all(re.search(r"\bup\b|ALERTS", text) or names for text, names in zip(expressions(), named, strict=True))
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for names in named for name in names}
    assert asked - FOREIGN <= documented
    assert len(asked) > 15


def test_every_figure_of_our_processes_is_documented() -> None:
    """Those of MinIO and MLflow are theirs: the table has what alerts and dashboard read of them."""
    shown = {family.name for family in TrainingMetrics("any").registry.collect()}
    shown |= {family.name for family in text_string_to_metric_families(ServerMetrics().content().decode())}
    documented = {metric.name.removesuffix("_total") for metric in documented_metrics()}
    created = {name for name in shown if name.endswith("_created")}  # when a counter began, by the client library
    assert len(shown - created) > 25
    assert shown - created == {name for name in documented if name.startswith("mantis_")}


def lost(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """The places of `ours` that are not in `theirs`, or not the same."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from lost(value, theirs.get(name), f"{where}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{where}[{number}]")
    elif ours != theirs:
        yield where


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    """Grafana's own types, which it generates from its schemas, read the file and write the same one."""
    ours = json.loads(DASHBOARD.read_text())
    register_default_plugins()
    loaded = GrafanaDashboard.from_json(ours)
    assert {panel.type_val for panel in loaded.panels} <= {"timeseries", "stat", "table", "gauge", "row"}
    assert [variable.name for variable in loaded.templating.list_val] == ["datasource", "run"]
    assert list(lost(ours, json.loads(JSONEncoder().encode(loaded)))) == []
    unknown = {**ours, "panels": [{**ours["panels"][0], "tragets": []}]}
    written = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(unknown)))
    assert list(lost(unknown, written)) == [".panels[0].tragets"]


def test_the_dashboard_reads_the_prometheus_that_a_person_chooses() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    source, run = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert [run["datasource"], *(panel["datasource"] for panel in dashboard["panels"])] == [chosen] * (
        1 + len(dashboard["panels"])
    )
    assert all("datasource" not in target for panel in dashboard["panels"] for target in panel["targets"])
    assert run["query"]["query"] == "label_values(mantis_training_step, run)"


def test_the_dashboard_has_a_panel_for_each_kind_of_figure() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    text = " ".join(expressions())
    for name in ("step", "loss", "tokens_total", "goodput_ratio", "checkpoint_timestamp_seconds"):
        assert f"mantis_training_{name}" in text
    for job in ("minio_", "mlflow_", "mantis_requests_total"):
        assert job in text


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The objects of an overlay with the component."""
    return built(tmp_path_factory.mktemp("lab"), resources=["overlays/a100"], components=["monitoring"])


def test_each_monitor_finds_its_pods_and_their_port(rendered: list[dict[str, Any]]) -> None:
    monitors = {each["metadata"]["name"]: each["spec"] for each in rendered if each["kind"] == "PodMonitor"}
    for kind, name, monitor in (
        ("StatefulSet", "minio", "mantis-minio"),
        ("StatefulSet", "mlflow", "mantis-mlflow"),
        ("ClusterTrainingRuntime", "mantis-deepspeed", "mantis-training"),
    ):
        template = pod_template(rendered, kind, name)
        # The index of a pod is a label that the Job's controller adds.
        labels = template["metadata"]["labels"] | {"batch.kubernetes.io/job-completion-index": "0"}
        assert monitors[monitor]["selector"]["matchLabels"].items() <= labels.items()
        ports = {port["name"] for each in template["spec"]["containers"] for port in each["ports"]}
        assert monitors[monitor]["podMetricsEndpoints"][0]["port"] in ports


class Healthy(BaseHTTPRequestHandler):
    """MLflow's /health, which asks for no password."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_figures_of_mlflow_need_no_password_and_end_with_it(tmp_path: Path) -> None:
    """Two workers wrote figures. While MLflow is away there are none, so that `up` is 0 and the alert fires."""
    count = "import prometheus_client; prometheus_client.Counter('mlflow_http_request', 'requests').inc(3)"
    for _ in range(2):
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", count], env=environment, check=True)
    mlflow = ThreadingHTTPServer(("127.0.0.1", free_port()), Healthy)
    threading.Thread(target=mlflow.serve_forever, daemon=True).start()

    def answer(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{figures}/{path}", timeout=HANG_SECONDS) as given:
                return given.status, given.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    with mlflow_figures(tmp_path, f"http://127.0.0.1:{mlflow.server_port}") as figures:
        until("the figures", lambda: answer("metrics")[0] == 200, 60)
        (requests,) = text_string_to_metric_families(answer("metrics")[1])
        assert [(sample.name, sample.value) for sample in requests.samples] == [("mlflow_http_request_total", 6.0)]
        assert answer("anything")[0] == 404
        mlflow.shutdown()
        mlflow.server_close()
        assert answer("metrics")[0] == 503


def test_pods_show_their_figures_to_prometheus_alone(rendered: list[dict[str, Any]]) -> None:
    for kind, name, variable in (
        ("StatefulSet", "minio", "MINIO_PROMETHEUS_AUTH_TYPE"),
        ("StatefulSet", "mlflow", "MLFLOW_EXPOSE_PROMETHEUS"),
        ("ClusterTrainingRuntime", "mantis-deepspeed", "MANTIS_METRICS_PORT"),
    ):
        spec = pod_template(rendered, kind, name)["spec"]
        assert variable in {each["name"] for each in spec["containers"][0]["env"]}
        assert_restricted(spec)
    policies = [each["spec"] for each in rendered if each["metadata"]["name"].endswith("-are-measured")]
    assert len(policies) == 3
    sources = [{"namespaceSelector": {"matchLabels": {"mantis-kfp/monitoring": "true"}}}]
    assert [policy["ingress"][0]["from"] for policy in policies] == [sources] * 3


def pod_template(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    template: dict[str, Any] = found["spec"]["template"]
    if kind == "ClusterTrainingRuntime":
        template = template["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    return template
