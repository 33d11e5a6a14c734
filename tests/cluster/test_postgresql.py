"""The components `backup` and `postgresql` on a cluster: runs and users survive a lost pod and a lost database.

The overlay `local` with both components is applied to namespaces of the test. The server's image is named by its tag
alone, so that the registry of a test cluster may have its own build. Each run of the tests takes three volumes.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.cluster.own_namespaces import STARTED, applied, moved, new_name
from tests.helpers.kubectl import Kube
from tests.helpers.kustomize import built
from tests.helpers.tracking_server import call_mlflow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
COPY = "copy"  # the bucket of the back-up, in the same MinIO
ADA = ("ada", "of 12 characters at least")


@dataclass(frozen=True, kw_only=True)
class MlflowOnPostgresql:
    """The project in namespaces of the test, and the local address of its MLflow."""

    kube: Kube
    namespace: str
    url: str

    def kubectl(self, *arguments: str) -> str:
        return self.kube.kubectl("-n", self.namespace, *arguments)

    def call(self, path: str, body: dict[str, Any], user: tuple[str, str]) -> Any:
        """See `call_mlflow`; OSError also while MLflow restarts."""
        return call_mlflow(self.url, path, body, user)

    def runs(self) -> list[str] | None:
        """Ids of the runs that a person finds; None while MLflow does not answer."""
        try:
            found = self.call("runs/search", {"experiment_ids": ["0"]}, ADA)["runs"]
        except OSError:
            return None
        return [run["info"]["run_id"] for run in found]

    def finish(self, job: str) -> str:
        """Start a CronJob by hand, wait for its end, and return its log."""
        self.kubectl("create", "job", job, f"--from=cronjob/{job}")
        self.kubectl("wait", "--for=condition=complete", f"job/{job}", f"--timeout={STARTED}s")
        return self.kubectl("logs", f"job/{job}")


def pulled(kube: Kube, namespace: str) -> bool:
    """Whether the server has started; the test is skipped if no registry of the cluster has its image."""
    pod = kube.kubectl("-n", namespace, "get", "pod", "postgresql-0", "--no-headers", "--ignore-not-found")
    if "ImagePullBackOff" in pod or "ErrImagePull" in pod:
        pytest.skip("no image postgres:15-bookworm in the registry of the cluster")
    return "1/1" in pod


@pytest.fixture(scope="module")
def installed(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowOnPostgresql]:
    name = new_name()
    components = ["backup", "postgresql"]
    objects = built(tmp_path_factory.mktemp("lab"), resources=["overlays/local"], components=components)
    text = yaml.safe_dump_all(moved(objects, name, with_volumes=("mlflow", "postgresql")))
    text = text.replace("image: postgres:15-bookworm@sha256:", "image: postgres:15-bookworm #")
    with ExitStack() as stack:
        stack.enter_context(applied(kube, text, name))
        kube.until("PostgreSQL", lambda: pulled(kube, name), STARTED)
        kube.kubectl("-n", name, "wait", "--for=condition=complete", "job", "--all", f"--timeout={STARTED}s")
        minio, mlflow = (
            stack.enter_context(kube.forwarded(*each, name)) for each in (("minio", 9000), ("mlflow", 5000))
        )
        prepare_back_up(kube, name, f"127.0.0.1:{minio}")
        yield MlflowOnPostgresql(kube=kube, namespace=name, url=f"http://127.0.0.1:{mlflow}")


def prepare_back_up(kube: Kube, namespace: str, address: str) -> None:
    """The bucket of the back-up, and the Secret that manifests/backup/kustomization.yaml asks for."""
    from minio import Minio

    root = kube.secret(namespace, "mantis-minio-root")
    keys = (root["MINIO_ROOT_USER"], root["MINIO_ROOT_PASSWORD"])
    Minio(address, access_key=keys[0], secret_key=keys[1], secure=False).make_bucket(COPY)
    given = {"ENDPOINT": kube.secret(namespace, "mantis-store")["AWS_ENDPOINT_URL"], "REGION": "us-east-1"}
    given |= {"BUCKET": COPY, "ACCESS_KEY_ID": keys[0], "SECRET_ACCESS_KEY": keys[1]}
    kube.core.create_namespaced_secret(namespace, {"metadata": {"name": "mantis-backup"}, "stringData": given})


@pytest.fixture(scope="module")
def run(installed: MlflowOnPostgresql) -> str:
    """Id of a run in MLflow, and a person's account beside it."""
    password = installed.kube.secret(installed.namespace, "mantis-mlflow-server")["MLFLOW_AUTH_ADMIN_PASSWORD"]
    admin = ("admin", password)
    installed.call("users/create", {"username": ADA[0], "password": ADA[1]}, admin)
    return str(installed.call("runs/create", {"experiment_id": "0"}, admin)["run"]["info"]["run_id"])


def test_no_database_is_on_the_volume_of_mlflow(installed: MlflowOnPostgresql, run: str) -> None:
    listed = installed.kubectl("exec", "mlflow-0", "-c", "mlflow", "--", "find", "/data")
    assert "/data" in listed
    assert ".db" not in listed
    tables = installed.kubectl("exec", "postgresql-0", "--", "psql", "-U", "mlflow", "-c", "select run_uuid from runs")
    assert run in tables


def test_a_server_that_is_killed_comes_back_with_everything(installed: MlflowOnPostgresql, run: str) -> None:
    """MLflow is not restarted: it connects again."""
    before = installed.kubectl("get", "pod", "mlflow-0", "-o", "jsonpath={.metadata.uid}")
    installed.kubectl("delete", "pod", "postgresql-0", "--grace-period=0", "--force")
    installed.kube.until("the run", lambda: installed.runs() == [run], 180)
    assert installed.kubectl("get", "pod", "mlflow-0", "-o", "jsonpath={.metadata.uid}") == before


def test_the_back_up_restores_a_database_that_is_lost(installed: MlflowOnPostgresql, run: str) -> None:
    """By the commands of docs/how-to/operate.md: MLflow is scaled down while `restore` works."""
    installed.finish("back-up")
    installed.kubectl("scale", "statefulset/mlflow", "--replicas=0")
    installed.kubectl("wait", "--for=delete", "pod/mlflow-0", "--timeout=120s")
    lose = "drop schema public cascade; create schema public"
    installed.kubectl("exec", "postgresql-0", "--", "psql", "-U", "mlflow", "-c", lose)
    installed.finish("restore")
    installed.kubectl("scale", "statefulset/mlflow", "--replicas=1")
    assert installed.kube.until("the runs", installed.runs, 300) == [run]
