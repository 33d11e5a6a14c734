import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components.core.settings import Recipe, parse_recipe
from components.core.steps import Run
from components.core.store import open_store
from components.core.store_local import LocalStore

ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"


@pytest.fixture(scope="session")
def test_data() -> Path:
    folder = os.environ.get("MANTIS_TEST_DATA")
    if not folder:
        pytest.skip("MANTIS_TEST_DATA is not set: no real conversations to read")
    return Path(folder)


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
