import base64
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from mantis.config.recipe import Recipe, parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.base import open_store
from mantis.store.local import LocalStore

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OVERLAY = Path(__file__).parents[1] / "manifests" / "overlays" / "local"
READY_SECONDS = 300  # of the overlay, on an empty cluster
DEMO_SKILLS = {"compare", "coref", "temporal", "reason", "single"}
ABOVE_CHANCE = 0.25  # of the lower end of the interval, in the demo as it is shipped
ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"


@pytest.fixture(scope="session")
def test_data() -> Path:
    folder = os.environ.get("MANTIS_TEST_DATA")
    if not folder:
        pytest.skip("MANTIS_TEST_DATA is not set: no real conversations to read")
    return Path(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pages are not looked at")
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: pages are not looked at")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=switches)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def minio_url(tmp_path_factory: pytest.TempPathFactory):
    """A real MinIO on loopback with the bucket `mantis`."""
    binary = shutil.which("minio")
    if binary is None:
        pytest.skip("no `minio` on PATH: the MinIO store is not tested (.ci/run builds one)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("minio")
    environment = os.environ | {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    command = [binary, "server", "--quiet", "--address", f"127.0.0.1:{port}", str(folder)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _until_ready(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(10)


def _until_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"minio ended with {server.returncode}")
        try:
            urllib.request.urlopen(f"{url}/minio/health/ready", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("minio was not ready within 60 s")


@pytest.fixture
def minio_store(minio_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from minio import Minio

    monkeypatch.setenv("AWS_ENDPOINT_URL", minio_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    client = Minio(minio_url.removeprefix("http://"), ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
    if not client.bucket_exists("mantis"):
        client.make_bucket("mantis")
    return open_store(f"s3://mantis/{tmp_path.name}")


@pytest.fixture
def json_server() -> Iterator[Callable[[Callable[[str, str], tuple[int, object]]], int]]:
    """Servers on loopback that say what `answer(method, path)` gives: a status and an object; returns the port."""
    with ExitStack() as stack:

        def start(answer: Callable[[str, str], tuple[int, object]]) -> int:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    status, body = answer(self.command, self.path)
                    text = json.dumps(body).encode()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)

                do_POST = do_DELETE = do_GET  # noqa: N815 (as http.server names them)

                def log_message(self, *_: object) -> None:
                    """Quiet."""

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return server.server_port

        yield start


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Point KUBECONFIG to an API server on loopback, without credentials."""

    def write(port: int) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(path))

    return write


@pytest.fixture
def local_store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def demo_recipe() -> Recipe:
    folder = Path(__file__).parent.parent / "pipelines" / "recipes"
    return parse_recipe((folder / "demo.yaml").read_text(), origin="demo")


@pytest.fixture
def run(local_store: LocalStore, demo_recipe: Recipe) -> Run:
    return Run(id="test-run", store=local_store, recipe=demo_recipe)


@pytest.fixture(scope="session")
def clears_its_bars() -> Callable[[list[dict[str, Any]]], None]:
    """Check the demo's scores, as summary.json has them: every skill is clearly above chance."""

    def check(scores: list[dict[str, Any]]) -> None:
        assert {row["skill"] for row in scores} == DEMO_SKILLS
        for row in scores:
            assert row["low"] >= row["chance"] + ABOVE_CHANCE, row

    return check


def kubectl(*arguments: object, stdin: str | None = None, check: bool = True) -> str:
    command = ["kubectl", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def until(what: str, ready: Callable[[], object], seconds: float) -> object:
    end = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < end, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="session")
def kube() -> SimpleNamespace:
    if "KUBECONFIG" not in os.environ:
        pytest.skip("KUBECONFIG is not set: no cluster to test on")
    from kubernetes import client, config

    config.load_kube_config()
    return SimpleNamespace(
        core=client.CoreV1Api(),
        batch=client.BatchV1Api(),
        kubectl=kubectl,
        until=until,
        jobs_are_done=jobs_are_done,
        forwarded=forwarded,
    )


@pytest.fixture(scope="session")
def mlflow_contents() -> Callable[[], Iterator[tuple[str, bytes]]]:
    """Every run of the tracking server, with its parameters and tags, and the text of its artifacts."""
    import mlflow
    from mlflow import MlflowClient

    def each() -> Iterator[tuple[str, bytes]]:
        client = MlflowClient()
        for experiment in client.search_experiments():
            for run in client.search_runs([experiment.experiment_id]):
                yield f"mlflow {run.info.run_name}", json.dumps(run.to_dictionary(), default=str).encode()
                for item in client.list_artifacts(run.info.run_id):
                    if not item.is_dir:
                        uri = f"runs:/{run.info.run_id}/{item.path}"
                        yield f"mlflow {run.info.run_name}/{item.path}", mlflow.artifacts.load_text(uri).encode()

    return each


def jobs_are_done() -> bool:
    """Whether each Job is complete; one that ended long ago is tidied away at any time."""
    each = "jsonpath={range .items[*]}{.metadata.name}={.status.succeeded} {end}"
    return all(job.endswith("=1") for job in kubectl("-n", "mantis", "get", "jobs", "-o", each).split())


@pytest.fixture(scope="session")
def platform(kube) -> float:
    """The overlay `local`, applied; how many seconds it took until everything was ready."""
    began = time.monotonic()
    kubectl("apply", "-k", OVERLAY)
    until("the Jobs of the overlay", jobs_are_done, READY_SECONDS)
    for name in ("minio", "mlflow"):
        kubectl("-n", "mantis", "rollout", "status", f"statefulset/{name}", f"--timeout={READY_SECONDS}s")
    return time.monotonic() - began


@contextmanager
def forwarded(service: str, port: int, namespace: str = "mantis") -> Iterator[int]:
    """A port of this machine that leads to a service; connected anew whenever the connection ends."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        here = free.getsockname()[1]
    leave, current = threading.Event(), []

    def work() -> None:
        while not leave.is_set():
            command = ["kubectl", "-n", namespace, "port-forward", f"service/{service}", f"{here}:{port}"]
            current[:] = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
            current[0].wait()
            leave.wait(0.3)

    def answers() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", here)) == 0

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until(f"the port of {service}", answers, 60)
    yield here
    leave.set()
    current[0].terminate()
    thread.join(10)


@pytest.fixture(scope="session")
def services(kube, platform) -> Iterator[dict[str, str]]:
    """The environment in which steps on this machine reach MinIO and MLflow of the cluster."""

    def secret(name: str) -> dict[str, str]:
        data = kube.core.read_namespaced_secret(name, "mantis").data
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    with ExitStack() as stack:
        ports = {name: stack.enter_context(forwarded(name, port)) for name, port in (("minio", 9000), ("mlflow", 5000))}
        given = secret("mantis-store") | secret("mantis-mlflow")
        given["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{ports['minio']}"
        given["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{ports['mlflow']}"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            yield given
