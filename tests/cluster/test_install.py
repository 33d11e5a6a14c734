"""`kubectl apply -k` of every overlay, on the real API server."""

import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "manifests" / "overlays").iterdir())


def test_everything_is_ready_within_five_minutes(platform):
    assert platform < 300


def test_every_pod_is_restricted(kube, platform):
    """The namespaces enforce it, and warn about nothing that was applied."""
    for namespace in ("mantis", "mantis-steps"):
        labels = kube.core.read_namespace(namespace).metadata.labels
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    said = kube.kubectl("label", "--dry-run=server", "--overwrite", "ns", "mantis",
                        "pod-security.kubernetes.io/enforce=restricted")  # fmt: skip
    assert "violate" not in said


def test_applied_again_nothing_is_restarted_and_no_password_changes(kube, platform):
    def state():
        listed = json.loads(kube.kubectl("-n", "mantis", "get", "statefulsets,pods", "-o", "json"))["items"]
        kept = [item["metadata"] for item in listed if item["metadata"]["name"].startswith(("minio", "mlflow"))]
        return {item["name"]: (item["uid"], item.get("generation")) for item in kept}

    before, password = state(), kube.core.read_namespaced_secret("mantis-store", "mantis").data
    kube.kubectl("apply", "-k", ROOT / "manifests" / "overlays" / "local")
    kube.until("the Jobs of the overlay", kube.jobs_are_done, 120)
    assert state() == before
    assert kube.core.read_namespaced_secret("mantis-store", "mantis").data == password


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_every_overlay(kube, namespace, overlay):
    """As if applied to an empty namespace: another overlay's volumes could not be changed in place."""
    built = yaml.safe_load_all(kube.kubectl("kustomize", ROOT / "manifests" / "overlays" / overlay))
    objects = [item for item in built if item["kind"] != "Namespace"]
    for item in objects:
        if "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = namespace
    said = kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(objects))
    assert "clustertrainingruntime.trainer.kubeflow.org/mantis-deepspeed" in said
    assert "would violate" not in said


def test_the_api_server_takes_every_job(kube, platform, namespace):
    """And Trainer's webhook, which knows the runtime; in a namespace where none of them is at work."""
    jobs = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "manifests" / "jobs").glob("*.yaml"))]
    for job in jobs:
        job["metadata"]["namespace"] = namespace
    said = kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(jobs))
    assert said.count("created (server dry run)") == len(jobs) > 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_password_is_in_the_repository(kube, overlay):
    built = kube.kubectl("kustomize", ROOT / "manifests" / "overlays" / overlay)
    assert "kind: Secret\n" not in built


def test_the_users_can_do_no_more_than_they_should(services, platform, kube):
    """The keys of steps and ranks read and write one bucket; the reader's only read."""
    import base64

    from minio import Minio, MinioAdmin
    from minio.credentials import StaticProvider
    from minio.error import MinioAdminException, S3Error

    host = services["AWS_ENDPOINT_URL"].removeprefix("http://")
    keys = {}
    for name in ("mantis-store", "mantis-store-read"):
        data = kube.core.read_namespaced_secret(name, "mantis").data
        values = [base64.b64decode(data[key]).decode() for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        keys[name] = values
    writer, reader = (Minio(host, access_key=user, secret_key=word, secure=False) for user, word in keys.values())
    with pytest.raises(S3Error, match="AccessDenied"):
        writer.make_bucket("of-my-own")
    with pytest.raises(S3Error, match="AccessDenied"):
        reader.remove_object("mantis", "anything")
    assert reader.bucket_exists("mantis")
    with pytest.raises(MinioAdminException):
        MinioAdmin(endpoint=host, credentials=StaticProvider(*keys["mantis-store"]), secure=False).user_list()


def test_mlflow_lets_nobody_in_without_a_password(services, platform):
    import urllib.error
    import urllib.request

    call = urllib.request.Request(
        f"{services['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 1}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(call, timeout=30)
    assert refused.value.code == 401
