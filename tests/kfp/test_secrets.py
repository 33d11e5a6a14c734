"""No credential of ours is in anything that runs on Kubeflow Pipelines have left."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers.kubectl import Kube
from tests.kfp.conftest import Kfp, SubmittedRun

pytestmark = pytest.mark.timeout(2700)
OURS = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture(scope="module")
def credentials(kube: Kube) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in ("mantis-store", "mantis-mlflow"):
        found |= {key: value.encode() for key, value in kube.secret("mantis", name).items() if key in OURS}
    assert found.keys() == set(OURS)
    return found


def bucket_of_kfp(kfp: Any, kube: Any) -> Iterator[tuple[str, bytes]]:
    """Every object of the bucket in which KFP keeps artifacts and logs."""
    from minio import Minio

    deployment = json.loads(kube.kubectl("-n", kfp.namespace, "get", "deployment", "ml-pipeline", "-o", "json"))
    listed = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    given = {item["name"]: item.get("value", "") for item in listed}
    secret = kube.secret(kfp.namespace, "mlpipeline-minio-artifact")
    user, password = secret["accesskey"], secret["secretkey"]
    service, _, namespace = given["OBJECTSTORECONFIG_HOST"].partition(".")
    namespace = namespace.partition(".")[0] or kfp.namespace
    with kube.forwarded(service, int(given["OBJECTSTORECONFIG_PORT"]), namespace) as port:
        client = Minio(f"127.0.0.1:{port}", access_key=user, secret_key=password, secure=False)
        for bucket in client.list_buckets():
            for item in client.list_objects(bucket.name, recursive=True):
                with client.get_object(bucket.name, item.object_name) as reply:
                    yield f"{bucket.name}/{item.object_name}", reply.read()


def everything(kfp: Any, kube: Any, mlflow_contents: Any) -> Iterator[tuple[str, bytes]]:
    for entry in kfp.opened.list(""):
        yield f"store {entry.key}", kfp.opened.get(entry.key)
    yield from bucket_of_kfp(kfp, kube)
    yield from mlflow_contents()
    yield "workflows", kube.kubectl("-n", kfp.namespace, "get", "wf", "-o", "json").encode()
    for namespace, label in ((kfp.namespace, "pipeline/runid"), ("mantis", "")):
        pods = kube.kubectl("-n", namespace, "get", "pods", "-o", "name", *(["-l", label] if label else []))
        for pod in pods.split():
            log = kube.kubectl("-n", namespace, "logs", pod, "--all-containers", "--ignore-errors", check=False)
            yield f"log {namespace} {pod}", log.encode()


def test_no_credential_is_left_anywhere(
    kfp: Kfp,
    small: SubmittedRun,
    kube: Kube,
    credentials: dict[str, bytes],
    mlflow_contents: Callable[[], Iterator[tuple[str, bytes]]],
) -> None:
    looked, kinds = 0, set()
    known, seen = small[0].encode(), 0
    for name, data in everything(kfp, kube, mlflow_contents):
        looked, seen = looked + 1, seen + (known in data)
        kinds.add(name.split()[0].split("/")[0])
        for variable, secret in credentials.items():
            assert secret not in data, f"{variable} is in {name}"
    assert looked > 100
    assert seen > 10, "a search that finds nothing proves nothing"
    assert {"store", "mlflow", "workflows", "log"} < kinds
