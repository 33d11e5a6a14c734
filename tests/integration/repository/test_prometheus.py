"""A real Prometheus reads MinIO, MLflow, a training and a server of a model, by the configuration that we ship."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.serving.live_model import LiveModel
from components.training.step import train
from tests.fixtures.stores import running_minio
from tests.fixtures.training import MakeRun
from tests.helpers.loopback import free_port
from tests.helpers.model_server import model_server
from tests.helpers.monitoring import (
    alert_groups,
    configuration,
    documented_metrics,
    drawn_expressions,
    expressions,
    mlflow_figures,
)
from tests.helpers.tracking_server import tracking_server
from tests.helpers.waiting import HANG_SECONDS

pytestmark = pytest.mark.slow

STEPS = 60
TRAINING = {
    "training.max_steps": str(STEPS),
    "training.epochs": "3",
    "training.gpus_per_node": "2",
    "training.log_every": "1",
    "training.evaluate_every": "6",
    "data.holdout": "20",
}
NEEDS_A_GPU = {"mantis_training_mfu_ratio"}


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[str]:
    """Prometheus with our configuration, which asks every 200 ms; yields its address."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("no `prometheus` on PATH (Debian's package prometheus has it)")
    settings = configuration(targets)
    settings["global"] = dict.fromkeys(settings["global"], "200ms")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    (folder / "alerts.yml").write_text(yaml.safe_dump(alert_groups()))
    address = f"127.0.0.1:{free_port()}"
    command = [binary, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        until(lambda: answered(f"http://{address}/-/ready"), (folder / "log").read_text)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(HANG_SECONDS)


def answered(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=4).close()
    except OSError:
        return False
    return True


def until(condition: Any, said: Any) -> None:
    end = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < end, said()
        time.sleep(0.2)


def read(server: str, path: str, query: dict[str, str]) -> Any:
    """The data that Prometheus's HTTP API answers with."""
    with urllib.request.urlopen(
        f"{server}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=HANG_SECONDS
    ) as answer:
        return json.load(answer)["data"]


def ask(server: str, expression: str) -> list[dict[str, Any]]:
    """The series of an expression. Prometheus refuses one that it cannot read with a status that raises."""
    return list(read(server, "query", {"query": expression})["result"])


def curves(server: str, expression: str, since: float) -> list[dict[str, Any]]:
    """The curves that a panel of Grafana draws of an expression, from the time `since` until now."""
    given = {"query": expression, "start": str(since), "end": str(time.time()), "step": "1"}
    return list(read(server, "query_range", given)["result"])


def runs(server: str) -> list[str]:
    """What Grafana asks for `label_values(mantis_training_step, run)`."""
    return list(read(server, "label/run/values", {"match[]": "mantis_training_step"}))


def seen(server: str, name: str, job: str) -> bool:
    """Whether the metric was read; of a histogram, its count."""
    wanted = f'{{__name__=~"{name}(_count)?", job="{job}"}}'
    return bool(ask(server, f"last_over_time({wanted}[1h])"))


def question(url: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "What colour?"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=HANG_SECONDS).close()


def test_every_metric_of_the_reference_arrives(
    make_run: MakeRun, live_model: LiveModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / name for name in ("minio", "mlflow", "prometheus")}
    for folder in folders.values():
        folder.mkdir()
    port = free_port()
    with ExitStack() as running:
        store = running.enter_context(running_minio(folders["minio"], MINIO_PROMETHEUS_AUTH_TYPE="public"))
        figures = {"MLFLOW_EXPOSE_PROMETHEUS": str(tmp_path / "figures")}
        tracking = running.enter_context(tracking_server(folders["mlflow"], given=figures))
        served = running.enter_context(model_server(live_model, tokens=8))
        urls = {"mantis-minio": store, "mantis-serving": served.url}
        targets = {job: urllib.parse.urlsplit(url).netloc for job, url in urls.items()}
        targets["mantis-mlflow"] = running.enter_context(mlflow_figures(tmp_path / "figures", tracking.url))
        server = running.enter_context(
            prometheus(folders["prometheus"], targets | {"mantis-training": f"127.0.0.1:{port}"})
        )
        monkeypatch.setenv("MANTIS_METRICS_PORT", str(port))
        for name, value in tracking.environment().items():
            monkeypatch.setenv(name, value)
        run, mixture = make_run("prometheus", TRAINING)
        began = time.time()
        question(served.url)
        train(run, mixture)

        wanted = [metric for metric in documented_metrics() if metric.name not in NEEDS_A_GPU]
        missing: list[str] = []

        def everything_is_there() -> bool:
            missing[:] = [metric.name for metric in wanted if not seen(server, metric.name, metric.job)]
            return not missing

        until(everything_is_there, lambda: missing)
        assert {each["metric"]["run"] for each in ask(server, "last_over_time(mantis_training_step[1h])")} == {run.id}
        (steps,) = ask(server, "max_over_time(mantis_training_steps[1h])")
        assert float(steps["value"][1]) == STEPS
        (step,) = ask(server, "max_over_time(mantis_training_step[1h])")
        assert 0 < float(step["value"][1]) <= STEPS
        for expression in expressions():
            ask(server, expression)
        assert runs(server) == [run.id]
        drawn = drawn_expressions(f"({run.id})")  # a person chose this run
        empty = [expression for expression in drawn if not curves(server, expression, began)]
        assert [text for text in empty if "ALERTS" not in text and not any(name in text for name in NEEDS_A_GPU)] == []
        other = [text for text in drawn_expressions("(another)") if "another" in text]
        assert len(other) > 8
        assert [expression for expression in other if curves(server, expression, began)] == []
        until(lambda: not ask(server, 'up{job="mantis-training"} == 1'), lambda: "the training has ended")
        assert {each["metric"]["job"] for each in ask(server, "up == 1")} == set(targets)
