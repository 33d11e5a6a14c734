"""The components of the manifests, as kustomize puts them into an overlay."""

from typing import Any

import pytest

from tests.helpers.kustomize import built
from tests.helpers.restricted_pods import assert_restricted


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """The objects of an overlay with back-up and PostgreSQL, by kind and name."""
    objects = built(tmp_path_factory.mktemp("lab"), resources=["overlays/a100"], components=["backup", "postgresql"])
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def pod_of(workload: Any) -> Any:
    spec = workload["spec"]
    return (spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)["template"]["spec"]


def source(container: Any, variable: str) -> Any:
    """The Secret that gives a container this variable."""
    (found,) = [each for each in container["env"] if each["name"] == variable]
    return found["valueFrom"]["secretKeyRef"]["name"]


@pytest.mark.parametrize(
    "workload",
    [("CronJob", "back-up"), ("CronJob", "restore"), ("StatefulSet", "mlflow"), ("StatefulSet", "postgresql")],
)
def test_every_pod_is_restricted_and_has_no_rights(
    rendered: dict[tuple[str, str], Any], workload: tuple[str, str]
) -> None:
    pod = pod_of(rendered[workload])
    assert_restricted(pod)
    assert pod["automountServiceAccountToken"] is False


def test_the_back_up_reads_and_only_a_restore_that_a_person_starts_writes(
    rendered: dict[tuple[str, str], Any],
) -> None:
    back_up, restore = rendered["CronJob", "back-up"], rendered["CronJob", "restore"]
    for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        variable = f"RCLONE_CONFIG_FROM_{key}"
        assert source(pod_of(back_up)["containers"][0], variable) == "mantis-store-read"
        assert source(pod_of(restore)["containers"][0], variable) == "mantis-store"
    assert (back_up["spec"]["suspend"], restore["spec"]["suspend"]) == (False, True)
    assert back_up["spec"]["concurrencyPolicy"] == "Forbid"
    volumes = {volume["name"]: volume for volume in pod_of(back_up)["volumes"]}
    claim = rendered["StatefulSet", "mlflow"]["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == f"{claim}-mlflow-0"


def test_mlflow_and_its_back_up_know_the_same_database(rendered: dict[tuple[str, str], Any]) -> None:
    mlflow = pod_of(rendered["StatefulSet", "mlflow"])
    containers = {each["name"]: each for each in [*mlflow["initContainers"], *mlflow["containers"]]}
    for job in ("back-up", "restore"):
        containers[job] = pod_of(rendered["CronJob", job])["containers"][0]
    assert containers.keys() == {"tables", "users", "mlflow", "back-up", "restore"}
    for container in containers.values():
        assert source(container, "MLFLOW_BACKEND_STORE_URI") == "mantis-postgresql"
    (path,) = [each["value"] for each in containers["mlflow"]["env"] if each["name"] == "MLFLOW_AUTH_CONFIG_PATH"]
    assert path in containers["users"]["command"][-1]


def test_postgresql_is_reached_by_mlflow_and_the_back_up_alone(rendered: dict[tuple[str, str], Any]) -> None:
    policy = rendered["NetworkPolicy", "postgresql-is-reached"]["spec"]
    labels = rendered["StatefulSet", "postgresql"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (rule,) = policy["ingress"]
    peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    assert peers == [{"mantis-kfp/service": "mlflow"}, {"mantis-kfp/role": "back-up"}]
