"""The parts of manifests/monitoring, as tests need them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from tests.helpers.loopback import free_port
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

MONITORING = ROOT / "manifests/monitoring"
DASHBOARD = MONITORING / "dashboard.json"
ALERT_TESTS = ROOT / "tests/unit/repository/alert_tests.yaml"


class DocumentedMetric(NamedTuple):
    """A metric of the table in docs/reference/metrics.md."""

    name: str
    job: str


def alert_groups() -> dict[str, Any]:
    """The alerts as Prometheus reads them from a file."""
    return dict(yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"])


def configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    """prometheus.yml, with the address of a server on loopback for each job.

    Debian builds Prometheus without Kubernetes, so the search for pods is left out, and so are the rules about them.
    """
    found = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    for job in found["scrape_configs"]:
        for name in ("kubernetes_sd_configs", "relabel_configs", "static_configs"):
            job.pop(name, None)
        job["static_configs"] = [{"targets": [targets.get(job["job_name"], "127.0.0.1:9")]}]
    return dict(found)


@contextmanager
def mlflow_figures(folder: Path, tracking: str) -> Iterator[str]:
    """The second container of MLflow's pod, as a process; yields its host and port.

    Args:
        folder: where MLflow's workers write their figures.
        tracking: MLflow's address on loopback.
    """
    port = free_port()
    given = {"MLFLOW_EXPOSE_PROMETHEUS": str(folder), "MLFLOW_TRACKING_URI": tracking, "FIGURES_PORT": str(port)}
    environment = os.environ | given | {"MLFLOW_PORT": str(urlsplit(tracking).port)}
    process = subprocess.Popen([sys.executable, MONITORING / "mlflow_figures.py"], env=environment)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


def documented_metrics() -> list[DocumentedMetric]:
    """The rows of the table."""
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Prometheus$(.*?)^## ", text, flags=re.DOTALL | re.MULTILINE)
    found = []
    for names, job in re.findall(r"^\| (`[^|]+`) \| `([\w-]+)` \|", section, flags=re.MULTILINE):
        found += [DocumentedMetric(name, job) for name in re.findall(r"`(\w+)`", names)]
    assert len(found) > 30
    return found


def expressions() -> list[str]:
    """Every expression of the alerts and of the dashboard; the dashboard's variable stands for all runs."""
    rules = [rule["expr"] for group in alert_groups()["groups"] for rule in group["rules"]]
    return [*rules, *drawn_expressions(".*")]


def drawn_expressions(run: str) -> list[str]:
    """Every expression of the dashboard. `run` is what Grafana writes in the place of its variable."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"].replace("$run", run) for panel in panels for target in panel["targets"]]
