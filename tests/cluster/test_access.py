"""With the launcher's account: what it needs works, and what it must not have is refused by the real API server."""

import json
from typing import Any

import pytest

from components.training.launch.trainjob_spec import train_job
from tests.cluster.conftest import RunInBucket
from tests.helpers.kubectl import Kube

ACCOUNTS = ("mantis:mantis-launcher", "mantis-steps:mantis-steps")
REFUSED = {
    "secrets of others": ("-n", "mantis", "get", "secret", "mantis-minio-root"),
    "all secrets": ("-n", "mantis", "get", "secrets"),
    "exec": ("-n", "mantis", "exec", "minio-0", "--", "true"),
    "nodes": ("get", "nodes"),
    "pods everywhere": ("get", "pods", "--all-namespaces"),
    "jobs everywhere": ("get", "trainjobs", "--all-namespaces"),
    "deleting pods": ("-n", "mantis", "delete", "pod", "minio-0", "--dry-run=server"),
    "running any pod": ("-n", "mantis", "run", "any", "--image=any", "--dry-run=server"),
    "changing a runtime": ("label", "clustertrainingruntime", "mantis-deepspeed", "a=b", "--dry-run=server"),
    "more rights": ("-n", "mantis", "create", "rolebinding", "any", "--role=mantis-launcher",
                    "--serviceaccount=default:default", "--dry-run=server"),
}  # fmt: skip


@pytest.fixture(params=ACCOUNTS)
def account(request: pytest.FixtureRequest, platform: float) -> str:
    return f"--as=system:serviceaccount:{request.param}"


def test_what_launching_needs(kube: Kube, account: str, run_in_bucket: RunInBucket) -> None:
    job = train_job(run_in_bucket(), "0" * 64)
    job["spec"]["suspend"] = True
    name = job["metadata"]["name"]

    def call(*arguments: Any, stdin: Any = None) -> Any:
        return kube.kubectl(account, "-n", "mantis", *arguments, stdin=stdin)

    assert "created" in call("create", "-f", "-", stdin=json.dumps(job))
    try:
        assert name in call("get", "trainjobs")
        assert name in call("get", "trainjob", name, "-o", "name")
        call("patch", "trainjob", name, "--type=merge", "-p", '{"metadata": {"annotations": {"mantis-kfp/a": "b"}}}')
        assert "minio-0" in call("get", "pods")
        assert "MinIO" in call("logs", "minio-0")
        call("get", "trainjobs", "--watch", "--request-timeout=1s")
        call("get", "events")
    finally:
        assert "deleted" in call("delete", "trainjob", name)


ROOT_KEY = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "mantis-minio-root", "key": "MINIO_ROOT_PASSWORD"}}}
WANTS_MORE: dict[str, dict[str, Any]] = {
    "a Secret": {"trainer": {"env": [ROOT_KEY]}},
    "an initializer": {"initializer": {"model": {"secretRef": {"name": "mantis-minio-root"}}}},
}


@pytest.mark.parametrize("what", WANTS_MORE)
def test_a_job_sees_what_its_runtime_gives_it_and_nothing_else(
    kube: Kube, account: str, run_in_bucket: RunInBucket, what: str
) -> None:
    """Else who may create one reads with it what `get secret` is refused. test_admission.py tries patches."""
    job = train_job(run_in_bucket(), "0" * 64)
    spec, extra = job["spec"], WANTS_MORE[what]
    spec |= {name: value for name, value in extra.items() if name != "trainer"}
    spec["trainer"] |= extra.get("trainer", {})
    arguments = (account, "-n", "mantis", "create", "--dry-run=server", "-f", "-")
    assert "denied request: spec." in kube.kubectl(*arguments, stdin=json.dumps(job), check=False)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(kube: Kube, account: str, what: str) -> None:
    said = kube.kubectl(account, *REFUSED[what], check=False)
    assert "is forbidden" in said or "Forbidden" in said, said


def test_the_ranks_account_may_do_nothing(kube: Kube, platform: float) -> None:
    for verb, kind in (("get", "pods"), ("get", "secrets"), ("create", "trainjobs"), ("list", "nodes")):
        said = kube.kubectl(
            "auth", "can-i", verb, kind, "-n", "mantis", "--as=system:serviceaccount:mantis:mantis-trainer", check=False
        )
        assert "no" in said.split(), said
