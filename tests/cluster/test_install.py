"""`kubectl apply -k` of every overlay, on the real API server."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.helpers.kubectl import Kube
from tests.helpers.paths import ROOT

OVERLAYS = sorted(path.name for path in (ROOT / "manifests" / "overlays").iterdir())


def test_everything_is_ready_within_five_minutes(platform: float) -> None:
    assert platform < 300


def test_applying_again_changes_nothing(kube: Kube, platform: float) -> None:
    """kubectl compares lists as a whole: a list without the server's defaults would be `configured` each time."""
    said = kube.kubectl("apply", "-k", ROOT / "manifests" / "overlays" / "local").splitlines()
    assert len(said) > 20
    assert [line for line in said if not line.endswith(" unchanged")] == []


def pods_of(overlay: str, kube: Any) -> dict[str, dict[str, Any]]:
    """The pods that an overlay leads to, by the object that makes them: templates, and the runtime's of the ranks."""
    found = {}
    for item in yaml.safe_load_all(kube.kubectl("kustomize", ROOT / "manifests" / "overlays" / overlay)):
        if item["kind"] == "ClusterTrainingRuntime":
            (node,) = item["spec"]["template"]["spec"]["replicatedJobs"]
            found["ranks"] = node["template"]["spec"]["template"]["spec"]
        elif "template" in item.get("spec", {}):
            spec = found[item["metadata"]["name"]] = item["spec"]["template"]["spec"]
            claims = [claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", ())]
            spec["volumes"] += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    return found


def create(kube: Any, namespace: str, name: str, spec: dict[str, Any]) -> str:
    """What the API server says to a pod; its account is another namespace's and does not count here."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    pod["spec"] = {key: value for key, value in spec.items() if key != "serviceAccountName"}
    return kube.kubectl("-n", namespace, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod), check=False)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(kube: Kube, platform: float, namespace: str, overlay: Any) -> None:
    """Each is taken in a namespace that enforces it, as ours do; with one right more it would not be."""
    for ours in ("mantis", "mantis-steps"):
        labels = kube.core.read_namespace(ours).metadata.labels
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = pods_of(overlay, kube)
    assert pods.keys() == {"minio", "mlflow", "make-secrets", "make-users", "ranks"}
    for name, spec in pods.items():
        assert f"pod/{name} created" in create(kube, namespace, name, spec)
        spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        assert 'violates PodSecurity "restricted' in create(kube, namespace, name, spec)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ranks_that_save_are_given_all_of_the_pods_time(kube: Kube, overlay: Any) -> None:
    """torchrun kills them after its own, which has to be the shorter one, and not by much."""
    ranks = pods_of(overlay, kube)["ranks"]
    given = {entry["name"]: entry.get("value") for entry in ranks["containers"][0]["env"]}
    assert 0 < ranks["terminationGracePeriodSeconds"] - int(given["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) <= 30


def test_applied_again_nothing_is_restarted_and_no_password_changes(kube: Kube, platform: float) -> None:
    def state() -> Any:
        listed = json.loads(kube.kubectl("-n", "mantis", "get", "statefulsets,pods", "-o", "json"))["items"]
        kept = [item["metadata"] for item in listed if item["metadata"]["name"].startswith(("minio", "mlflow"))]
        return {item["name"]: (item["uid"], item.get("generation")) for item in kept}

    before, password = state(), kube.secret("mantis", "mantis-store")
    kube.kubectl("apply", "-k", ROOT / "manifests" / "overlays" / "local")
    kube.until("the Jobs of the overlay", kube.jobs_are_done, 120)
    assert state() == before
    assert kube.secret("mantis", "mantis-store") == password


def takes(kube: Any, namespace: str, folder: Path) -> str:
    """What the API server says to a kustomization, as if it were applied to an empty namespace.

    Another overlay's volumes could not be changed in place.
    """
    objects = [item for item in yaml.safe_load_all(kube.kubectl("kustomize", folder)) if item["kind"] != "Namespace"]
    for item in objects:
        if "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = namespace
    return kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(objects))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_every_overlay(kube: Kube, namespace: str, overlay: Any) -> None:
    said = takes(kube, namespace, ROOT / "manifests" / "overlays" / overlay)
    assert "clustertrainingruntime.trainer.kubeflow.org/mantis-deepspeed" in said
    assert "would violate" not in said


def test_an_s3_and_a_database_of_ones_own_take_the_place_of_ours(kube: Kube, namespace: str, tmp_path: Path) -> None:
    manifests = os.path.relpath(ROOT / "manifests", tmp_path)
    overlay = {
        "resources": [f"{manifests}/overlays/a100"],
        "components": [f"{manifests}/own/s3", f"{manifests}/own/postgresql"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    said = takes(kube, namespace, tmp_path)
    assert "statefulset.apps/mlflow" in said
    assert "minio" not in said
    for policy in ("clients-reach-own-s3", "mlflow-reaches-postgresql"):
        assert f"networkpolicy.networking.k8s.io/{policy} created" in said


def test_a_store_that_is_not_ours_gets_no_users(tmp_path: Path) -> None:
    for name, address in (("store", "https://s3.example.org"), ("mlflow", "https://minio.mlflow.example.org")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "endpoint").write_text(address)
    script = ROOT / "manifests" / "base" / "bootstrap" / "make_users.py"
    environment = os.environ | {"SECRETS": str(tmp_path), "NAMESPACE": "mantis"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is not ours and is left alone") == 2


def test_the_api_server_takes_every_job(kube: Kube, platform: float, namespace: str) -> None:
    """And Trainer's webhook, which knows the runtime; in a namespace where none of them is at work."""
    texts = [path.read_text() for path in sorted((ROOT / "manifests" / "jobs").glob("*.yaml"))]
    jobs = [text.replace("\n  namespace: mantis\n", f"\n  namespace: {namespace}\n") for text in texts]
    said = kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin="---\n".join(jobs))
    assert said.count("created (server dry run)") == len(jobs) > 0


@pytest.mark.parametrize(
    "pipeline", sorted((ROOT / "pipelines" / "compiled").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_api_server_takes_every_compiled_pipeline(kube: Kube, namespace: str, pipeline: Any) -> None:
    """As the PipelineVersion that KFP keeps of it where pipelines are objects of Kubernetes."""
    if "pipelineversions" not in kube.kubectl("api-resources", "--api-group=pipelines.kubeflow.org", "-o", "name"):
        pytest.skip("no PipelineVersion in this cluster: KFP's CRDs are not installed")
    specification, platform = yaml.safe_load_all(pipeline.read_text())
    version = {
        "apiVersion": "pipelines.kubeflow.org/v2beta1",
        "kind": "PipelineVersion",
        "metadata": {"name": pipeline.stem, "namespace": namespace},
        "spec": {"pipelineName": pipeline.stem, "pipelineSpec": specification, "platformSpec": platform},
    }
    said = kube.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(version))
    assert f"{pipeline.stem} created (server dry run)" in said


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_password_is_in_the_repository(kube: Kube, overlay: Any) -> None:
    built = kube.kubectl("kustomize", ROOT / "manifests" / "overlays" / overlay)
    assert "kind: Secret\n" not in built


def test_the_users_can_do_no_more_than_they_should(services: dict[str, str], platform: float, kube: Kube) -> None:
    """The keys of steps and ranks read and write one bucket; the reader's only read."""
    from minio import Minio, MinioAdmin
    from minio.credentials import StaticProvider
    from minio.error import MinioAdminException, S3Error

    host = services["AWS_ENDPOINT_URL"].removeprefix("http://")
    keys = {}
    for name in ("mantis-store", "mantis-store-read"):
        data = kube.secret("mantis", name)
        keys[name] = [data[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    writer, reader = (Minio(host, access_key=user, secret_key=word, secure=False) for user, word in keys.values())
    with pytest.raises(S3Error, match="AccessDenied"):
        writer.make_bucket("of-my-own")
    with pytest.raises(S3Error, match="AccessDenied"):
        reader.remove_object("mantis", "anything")
    assert reader.bucket_exists("mantis")
    with pytest.raises(MinioAdminException):
        MinioAdmin(endpoint=host, credentials=StaticProvider(*keys["mantis-store"]), secure=False).user_list()


def test_mlflow_lets_nobody_in_without_a_password(services: dict[str, str], platform: float) -> None:
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


def test_a_new_password_reaches_everybody(kube: Kube, services: dict[str, str]) -> None:
    """As docs/how-to/operate.md says it: the Secret and both Jobs go, and the overlay is applied again."""
    from minio import Minio
    from minio.error import S3Error

    def keys(namespace: str) -> list[str]:
        data = kube.secret(namespace, "mantis-store")
        return [data[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]

    before = keys("mantis")
    assert keys("mantis-steps") == before
    kube.kubectl("-n", "mantis", "delete", "--ignore-not-found", "secret/mantis-store", "job/make-secrets",
                 "job/make-users")  # fmt: skip
    kube.kubectl("apply", "-k", ROOT / "manifests" / "overlays" / "local")
    kube.until("the Jobs of the overlay", kube.jobs_are_done, 240)
    after = keys("mantis")
    assert after[1] != before[1]
    assert keys("mantis-steps") == after
    host = services["AWS_ENDPOINT_URL"].removeprefix("http://")
    assert Minio(host, access_key=after[0], secret_key=after[1], secure=False).bucket_exists("mantis")
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        Minio(host, access_key=before[0], secret_key=before[1], secure=False).bucket_exists("mantis")
    os.environ["AWS_SECRET_ACCESS_KEY"] = after[1]  # for the tests behind this one


def test_the_administrator_of_mlflow_gets_a_new_password_by_the_commands_of_the_guide(
    kube: Kube, services: dict[str, str]
) -> None:
    import urllib.error
    import urllib.request

    text = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    ((path, body),) = re.findall(
        r"curl -X PATCH -u admin:OLD http://127.0.0.1:5000(\S+) .*?-d '(.*?)'\n", text, re.DOTALL
    )
    (patch,) = re.findall(r"kubectl -n mantis patch secret mantis-mlflow-server -p '(.*)'", text)
    old, new = kube.secret("mantis", "mantis-mlflow-server")["MLFLOW_AUTH_ADMIN_PASSWORD"], uuid4().hex

    def call(password: str, method: str, path: str, body: str | None = None) -> int:
        login = base64.b64encode(f"admin:{password}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
        url = f"{services['MLFLOW_TRACKING_URI']}{path}"
        request = urllib.request.Request(url, body.encode() if body else None, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)

    assert call(old, "PATCH", path, body.replace("OLD", old).replace("NEW", new)) == 200
    kube.kubectl("-n", "mantis", "patch", "secret", "mantis-mlflow-server", "-p", patch.replace("NEW", new))

    def answers(password: str) -> set[int]:
        """Of several calls, since each of the server's workers remembers passwords for itself."""
        return {call(password, "GET", "/api/2.0/mlflow/users/get?username=admin") for _ in range(12)}

    assert answers(new) == {200}
    (minute,) = re.findall(r"accepts a replaced password for up to (\d+) seconds", text)
    kube.until("every worker refuses the old password", lambda: answers(old) == {401}, int(minute) + 30)
